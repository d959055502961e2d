#include "simt/image.h"

#include <link.h>

#include <algorithm>
#include <cstring>

namespace simt {
namespace {

// Referring to thread-local storage of this library makes the loader allocate it for the calling thread.
thread_local unsigned char shared_memory_anchor[16];

int read_library(dl_phdr_info* info, size_t, void* result) {
  Image found;
  found.base = info->dlpi_addr;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const auto& segment = info->dlpi_phdr[i];
    if (segment.p_type == PT_LOAD) found.end = std::max(found.end, found.base + segment.p_vaddr + segment.p_memsz);
    if (segment.p_type == PT_TLS) {
      found.shared_begin = reinterpret_cast<uintptr_t>(info->dlpi_tls_data);
      found.shared_bytes = segment.p_memsz;
    }
  }
  if (!found.contains(reinterpret_cast<uintptr_t>(&read_library))) return 0;
  *static_cast<Image*>(result) = found;
  return 1;
}

}  // namespace

const Image& image() {
  static const Image found = [] {
    memset(shared_memory_anchor, 0, sizeof shared_memory_anchor);
    Image result;
    dl_iterate_phdr(read_library, &result);
    return result;
  }();
  return found;
}

}  // namespace simt
