#include "simt/traffic.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "simt/image.h"
#include "simt/machine.h"

namespace simt {
namespace {

constexpr unsigned kSectorBytes = 32, kBanks = 32, kBankBytes = 4;

struct Request {
  bool is_write, is_shared;
  size_t bytes;
  std::vector<uintptr_t> addresses;  // one a lane
};

using Instruction = std::pair<const void*, size_t>;                                      // its code and width
std::map<std::pair<Instruction, unsigned>, std::array<uint32_t, kWarpSize>> executions;  // by instruction and warp
std::map<std::tuple<Instruction, unsigned, uint32_t>, Request> requests;                 // of the present block
std::map<Instruction, TrafficRow> sums;
std::vector<TrafficRow> rows;

void add_global(const Request& request, TrafficRow& row) {
  std::set<uintptr_t> sectors, addresses;
  for (const uintptr_t address : request.addresses) {
    addresses.insert(address);
    for (uintptr_t s = address / kSectorBytes; s <= (address + request.bytes - 1) / kSectorBytes; s++)
      sectors.insert(s);
  }
  row.units += sectors.size();
  row.ideal += (addresses.size() * request.bytes + kSectorBytes - 1) / kSectorBytes;
}

// 128 bytes are served at a time: accesses of 8 and 16 bytes go by half and quarter warps.
void add_shared(const Request& request, TrafficRow& row) {
  const size_t group = request.bytes > kBankBytes ? std::max<size_t>(1, 128 / request.bytes) : kWarpSize;
  for (size_t begin = 0; begin < request.addresses.size(); begin += group) {
    std::set<uintptr_t> words;
    unsigned load[kBanks] = {}, passes = 0;
    for (size_t i = begin; i < std::min(begin + group, request.addresses.size()); i++) {
      const uintptr_t first = request.addresses[i] / kBankBytes,
                      last = (request.addresses[i] + request.bytes - 1) / kBankBytes;
      for (uintptr_t word = first; word <= last; word++)
        if (words.insert(word).second) passes = std::max(passes, ++load[word % kBanks]);
    }
    row.units += passes;
    row.ideal++;
  }
}

}  // namespace

void count_request(const MemoryAccess& access, bool shared) {
  const Thread& thread = machine.current->view;
  const Instruction instruction{access.code, access.bytes};
  const uint32_t turn = executions[{instruction, thread.warp}][thread.lane]++;
  Request& request = requests[{instruction, thread.warp, turn}];
  request.is_write = access.is_write;
  request.is_shared = shared;
  request.bytes = access.bytes;
  request.addresses.push_back(access.address);
}

void end_traffic_of_block() {
  for (const auto& [key, request] : requests) {
    const Instruction& instruction = std::get<0>(key);
    TrafficRow& row = sums[instruction];
    row.code_offset = image().code_offset(instruction.first);
    row.bytes = (uint32_t)request.bytes;
    row.is_write = request.is_write;
    row.is_shared = request.is_shared;
    row.requests++;
    row.lanes += request.addresses.size();
    if (request.is_shared) add_shared(request, row);
    else add_global(request, row);
  }
  requests.clear();
  executions.clear();
}

void clear_traffic() { sums.clear(); }

size_t traffic_rows(const TrafficRow** result) {
  rows.clear();
  for (const auto& entry : sums) rows.push_back(entry.second);
  *result = rows.data();
  return rows.size();
}

}  // namespace simt
