#include "simt/reports.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <set>
#include <utility>

#include "simt/image.h"

namespace simt {
namespace {
constexpr size_t kMaxReports = 32;
std::vector<std::string> collected;
std::set<std::pair<uintptr_t, uintptr_t>> reported_keys;
}  // namespace

void report(const std::string& text) {
  if (collected.size() < kMaxReports) collected.push_back(text);
}

void report_once(uintptr_t key, uintptr_t other_key, const std::string& text) {
  if (reported_keys.insert(std::minmax({key, other_key})).second) report(text);
}

const std::vector<std::string>& reports() { return collected; }

void clear_reports() {
  collected.clear();
  reported_keys.clear();
}

std::string format(const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return text;
}

std::string code_place(const void* return_address) {
  return format("code+0x%lx", (unsigned long)image().code_offset(return_address));
}

std::string site_place(const Site& site) { return format("%s:%d", site.file, site.line); }

std::string thread_name(const Thread& t) {
  return format("block (%u,%u,%u) thread (%u,%u,%u)", t.block_index.x, t.block_index.y, t.block_index.z,
                t.thread_index.x, t.thread_index.y, t.thread_index.z);
}

}  // namespace simt
