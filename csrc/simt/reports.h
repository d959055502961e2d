// What the checker has found since the last clear_reports().
#pragma once
#include <string>
#include <vector>

#include "simt/runtime.h"

namespace simt {

// `text` starts with its kind, as in "race: ...". Places in the code are written by code_place(), which the Python
// harness turns into source lines.
void report(const std::string& text);
// The same, once for each pair of keys: one faulty instruction runs in many threads.
void report_once(uintptr_t key, uintptr_t other_key, const std::string& text);
inline uintptr_t key_of(const void* code) { return reinterpret_cast<uintptr_t>(code); }
inline uintptr_t key_of(const Site& site) { return reinterpret_cast<uintptr_t>(site.file) + (unsigned)site.line; }

const std::vector<std::string>& reports();
void clear_reports();

std::string format(const char* format, ...) __attribute__((format(printf, 1, 2)));
std::string code_place(const void* return_address);
std::string site_place(const Site& site);
std::string thread_name(const Thread& thread);

}  // namespace simt
