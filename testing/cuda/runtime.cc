// The state of the stand-in (runtime.h): each stream is a queue with an OS thread that works it off, so that what is not waited
// for is really not there yet. Stricter than CUDA: a device-to-host copy is always asynchronous; a call from a host
// function, a stream of another device than the current one, and cudaErrorNotReady leave an error behind.

#include "runtime.h"

#include <stdio.h>
#include <stdlib.h>

namespace sv_standin {

void die(const std::string& what) {
  fprintf(stderr, "stand-in: %s\n", what.c_str());
  abort();
}

Settings::Settings() {
  const char* text = getenv("SPARSEVILA_STANDIN");
  std::string rest = text ? text : "";
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    set(rest.substr(0, comma));
    rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
  }
}

void Settings::set(const std::string& pair) {
  const size_t equals = pair.find('=');
  const std::string key = pair.substr(0, equals), value = equals == std::string::npos ? "" : pair.substr(equals + 1);
  const auto order = [&] { return value == "forward" ? 0 : (value == "reverse" ? 1 : (value == "shuffled" && key == "blocks" ? 2 : -1)); };
  char* end = nullptr;
  const long long number = strtoll(value.c_str(), &end, 10);
  const bool is_number = !value.empty() && *end == 0 && number >= 0;
  if (key == "devices" && is_number && number <= 16) devices = int(number);
  else if (key == "memory" && is_number) memory = size_t(number);
  else if (key == "capability" && is_number) capability = int(number);
  else if (key == "driver" && is_number) driver = int(number);
  else if (key == "threads" && is_number && number >= 1 && number <= 64) schedule.threads = int(number);
  else if (key == "blocks" && order() >= 0) schedule.blocks = order();
  else if (key == "fibers" && order() >= 0) schedule.fibers = order();
  else die("SPARSEVILA_STANDIN: '" + pair + "' is not a setting; see testing/cuda/cuda_runtime.h");
}

const Settings& settings() {
  static const Settings* const all = new Settings;
  return *all;
}

std::atomic<int> sticky{0};

cudaError_t fail(cudaError_t error) {
  if (error != cudaSuccess) current.last_error = error;
  return error;
}

cudaError_t begin() {
  if (current.in_host_function) return cudaErrorNotPermitted;
  if (settings().driver < kRuntime) return cudaErrorInsufficientDriver;
  if (settings().devices == 0) return cudaErrorNoDevice;
  return cudaError_t(sticky.load());
}

World& world() {
  static World* const all = new World;
  return *all;
}

bool is_live(cudaStream_t stream) {
  std::lock_guard<std::mutex> lock(world().mutex);
  for (cudaStream_t s : world().streams)
    if (s == stream) return true;
  return false;
}
bool is_live(cudaEvent_t event) {
  std::lock_guard<std::mutex> lock(world().mutex);
  for (cudaEvent_t e : world().events)
    if (e == event) return true;
  return false;
}
static cudaStream_t default_stream(int device) { return world().streams[size_t(device)]; }
static cudaStream_t resolve(cudaStream_t stream) { return stream ? stream : default_stream(current.device); }

/** Makes `later` wait until all that is now in `earlier` is done. */
static void order(Queue& earlier, Queue& later) {
  auto mark = std::make_shared<Mark>();
  earlier.push([mark] { mark->reach(); });
  later.push([mark] { mark->wait(); });
}

void push(cudaStream_t stream, std::function<void()> work) {
  const cudaStream_t own_default = default_stream(stream->device);
  if (stream->blocking) order(*own_default->queue, *stream->queue);
  if (stream == own_default) {
    std::vector<std::shared_ptr<Queue>> others;
    {
      std::lock_guard<std::mutex> lock(world().mutex);
      for (cudaStream_t s : world().streams)
        if (s->blocking && s->device == stream->device) others.push_back(s->queue);
    }
    for (auto& queue : others) order(*queue, *stream->queue);
  }
  stream->queue->push(std::move(work));
}

void drain(int device) {
  std::vector<std::shared_ptr<Queue>> queues;
  {
    std::lock_guard<std::mutex> lock(world().mutex);
    for (cudaStream_t s : world().streams)
      if (device < 0 || s->device == device) queues.push_back(s->queue);
  }
  for (auto& queue : queues) queue->wait();
}

cudaError_t check_stream(cudaStream_t& stream) {
  SV_BEGIN();
  stream = resolve(stream);
  return is_live(stream) ? cudaSuccess : fail(cudaErrorInvalidResourceHandle);
}

}  // namespace sv_standin
