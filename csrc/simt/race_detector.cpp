#include "simt/race_detector.h"

#include <memory>
#include <unordered_map>

#include "simt/machine.h"
#include "simt/reports.h"

namespace simt {
namespace {

constexpr unsigned kWordBytes = 4;
constexpr unsigned kMaxReaders = 6;
constexpr uint8_t kHalves[] = {0x3, 0xc};

// One thread's access to one word, and when it was.
struct Record {
  uint32_t block, thread, epoch, clock;
  const void* code;
  uint8_t bytes;  // which of the word's: bit mask
  bool is_atomic;
};

// History of one word: the last write, and reads since. Forgotten when a new launch (global memory) or block (shared
// memory) begins.
struct Word {
  uint32_t era;
  uint8_t initialised;  // bit mask of its bytes
  uint8_t reader_count;
  Record writers[2];  // of the lower and the upper half: neighbours in half precision. bytes == 0: none
  Record readers[kMaxReaders];
};

struct Page {
  static constexpr unsigned kBytes = 4096;
  Word words[kBytes / kWordBytes];
};

class Shadow {
 public:
  Word& word(uintptr_t address) {
    const uintptr_t key = address / Page::kBytes;
    Recent& recent = recent_[key % kRecent];
    if (recent.key != key || !recent.page) recent = {key, page(key)};
    return recent.page->words[address % Page::kBytes / kWordBytes];
  }

 private:
  static constexpr unsigned kRecent = 64;
  static constexpr size_t kMaxPages = 2048;  // half a gigabyte
  struct Recent {
    uintptr_t key;
    Page* page;
  };

  Page* page(uintptr_t key) {
    std::unique_ptr<Page>& found = pages_[key];
    if (!found) found = std::make_unique<Page>();
    return found.get();
  }

 public:
  // Between launches: what is left belongs to eras gone by.
  void trim() {
    if (pages_.size() < kMaxPages) return;
    pages_.clear();
    for (Recent& recent : recent_) recent = {};
  }

 private:
  Recent recent_[kRecent] = {};
  std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages_;
};

Shadow shadow;
uint32_t trimmed_in_launch = 0;

bool happens_before(const Record& earlier, const CudaThread& now) {
  if (earlier.block != machine.block_serial) return false;
  if (earlier.thread == now.view.rank || earlier.epoch < now.epoch) return true;
  return earlier.thread / kWarpSize == now.view.warp && now.clock[earlier.thread % kWarpSize] >= earlier.clock;
}

bool conflict(const Record& earlier, const Record& now) {
  return (earlier.bytes & now.bytes) && !(earlier.is_atomic && now.is_atomic) &&
         !happens_before(earlier, *machine.current);
}

void report_race(const Record& earlier, const char* earlier_kind, const Record& now, const char* kind, bool shared) {
  const bool same_block = earlier.block == machine.block_serial;
  report_once(key_of(earlier.code), key_of(now.code),
              format("race: %s memory, %s by thread %u of %s block at %s, unordered with %s by %s at %s",
                     shared ? "shared" : "global", earlier_kind, earlier.thread, same_block ? "this" : "another",
                     code_place(earlier.code).c_str(), kind, thread_name(machine.current->view).c_str(),
                     code_place(now.code).c_str()));
}

const char* kind_of_write(const Record& record) { return record.is_atomic ? "atomic" : "write"; }

void check_initialised(Word& word, const Record& now) {
  if ((word.initialised & now.bytes) == now.bytes) return;
  report_once(key_of(now.code), 0,
              format("uninitialised: shared memory read by %s at %s", thread_name(machine.current->view).c_str(),
                     code_place(now.code).c_str()));
  word.initialised |= now.bytes;
}

void record_write(Word& word, const Record& now, bool shared) {
  for (unsigned i = 0; i < word.reader_count; i++)
    if (conflict(word.readers[i], now)) report_race(word.readers[i], "read", now, kind_of_write(now), shared);
  unsigned kept = 0;  // reads of other bytes of the word
  for (unsigned i = 0; i < word.reader_count; i++)
    if (word.readers[i].bytes & ~now.bytes) word.readers[kept++] = word.readers[i];
  word.reader_count = (uint8_t)kept;
  for (unsigned half = 0; half < 2; half++) {
    const uint8_t bytes = now.bytes & kHalves[half];
    if (!bytes) continue;
    Record& writer = word.writers[half];
    const bool extends = writer.bytes && writer.thread == now.thread && writer.block == now.block;
    const uint8_t before = extends ? writer.bytes : 0;
    writer = now;
    writer.bytes = bytes | before;
  }
  word.initialised |= now.bytes;
}

void record_read(Word& word, const Record& now) {
  unsigned slot = 0;
  const auto replaceable = [&](const Record& r) {  // by this thread itself, or known to it
    return happens_before(r, *machine.current) && !(r.bytes & ~now.bytes);
  };
  while (slot < word.reader_count && !replaceable(word.readers[slot])) slot++;
  if (slot == kMaxReaders) slot = (unsigned)(machine.random() % kMaxReaders);
  else if (slot == word.reader_count) word.reader_count++;
  word.readers[slot] = now;
}

}  // namespace

void check_races(const MemoryAccess& access, bool shared) {
  if (trimmed_in_launch != machine.launch_serial) {
    shadow.trim();
    trimmed_in_launch = machine.launch_serial;
  }
  const CudaThread& thread = *machine.current;
  const uint32_t era = shared ? machine.block_serial : machine.launch_serial;
  const uintptr_t end = access.address + access.bytes;
  for (uintptr_t base = access.address & ~uintptr_t(kWordBytes - 1); base < end; base += kWordBytes) {
    Record now{machine.block_serial, thread.view.rank, thread.epoch, thread.clock[thread.view.lane], access.code, 0,
               access.is_atomic};
    for (unsigned i = 0; i < kWordBytes; i++)
      if (base + i >= access.address && base + i < end) now.bytes |= (uint8_t)(1u << i);
    Word& word = shadow.word(base);
    if (word.era != era) {
      word.era = era;
      word.initialised = word.reader_count = word.writers[0].bytes = word.writers[1].bytes = 0;
    }
    if (shared && (!access.is_write || access.is_atomic)) check_initialised(word, now);
    for (const Record& writer : word.writers)
      if (conflict(writer, now))
        report_race(writer, kind_of_write(writer), now, access.is_write ? kind_of_write(now) : "read", shared);
    if (access.is_write) record_write(word, now, shared);
    else record_read(word, now);
  }
}

}  // namespace simt
