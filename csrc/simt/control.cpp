// What the Python harness (python_tests/simt) calls.
#include <string>
#include <vector>

#include "simt/machine.h"
#include "simt/memory.h"
#include "simt/reports.h"
#include "simt/traffic.h"

namespace simt {
namespace {

struct LaunchSiteRecord {
  std::string function;
  bool launched;
};
std::vector<LaunchSiteRecord>& launch_sites() {  // filled while the library is loaded
  static std::vector<LaunchSiteRecord> sites;
  return sites;
}

}  // namespace

int register_launch(const char* function) {
  launch_sites().push_back({function, false});
  return (int)launch_sites().size() - 1;
}
void mark_launched(int id) { launch_sites()[(size_t)id].launched = true; }

}  // namespace simt

extern "C" {

void simt_configure(int schedule, uint64_t seed, int preempt_permille, int count_traffic) {
  simt::machine.options = {static_cast<simt::Schedule>(schedule), seed, preempt_permille, count_traffic != 0};
  simt::clear_traffic();
}

void simt_register_buffer(const void* begin, size_t bytes, const char* name, int writable) {
  simt::register_buffer(begin, bytes, name, writable != 0);
}
void simt_clear_buffers() { simt::clear_buffers(); }

int simt_report_count() { return (int)simt::reports().size(); }
const char* simt_report(int i) { return simt::reports()[(size_t)i].c_str(); }
void simt_clear_reports() { simt::clear_reports(); }

size_t simt_traffic_rows(const simt::TrafficRow** rows) { return simt::traffic_rows(rows); }

int simt_launch_site_count() { return (int)simt::launch_sites().size(); }
const char* simt_launch_site(int i) { return simt::launch_sites()[(size_t)i].function.c_str(); }
int simt_launch_site_ran(int i) { return simt::launch_sites()[(size_t)i].launched; }

}  // extern "C"
