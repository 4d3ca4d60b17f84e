// Streams, events, timers and host callbacks for TensorFlow.
#include "device.h"

struct SP_Event_st {
  cudaEvent_t event;
};
struct SP_Timer_st {
  cudaEvent_t start, stop;
};

namespace sv {
namespace {

void create_stream(const SP_Device* device, SP_Stream* stream, TF_Status* status) {
  *stream = nullptr;
  attempt(device, status, "creating a stream", [&] {
    cudaStream_t made;
    const cudaError_t error = cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking);
    if (error == cudaSuccess) *stream = new SP_Stream_st{made, of(device).gpu.index};
    return error;
  });
}
void destroy_stream(const SP_Device* device, SP_Stream stream) {
  if (!stream) return;
  attempt(device, "destroying a stream", [&] { return cudaStreamDestroy(of(stream)); });
  delete stream;
}
void create_stream_dependency(const SP_Device* device, SP_Stream dependent, SP_Stream other, TF_Status* status) {
  attempt(device, status, "ordering streams", [&] {
    OpenDevice& d = of(device);
    std::lock_guard<std::mutex> lock(d.mutex);
    const cudaError_t error = cudaEventRecord(d.order, of(other));
    return error == cudaSuccess ? cudaStreamWaitEvent(of(dependent), d.order, 0) : error;
  });
}
void get_stream_status(const SP_Device* device, SP_Stream stream, TF_Status* status) {
  attempt(device, status, "work on a stream", [&] {
    const cudaError_t error = cudaStreamQuery(of(stream));
    return error == cudaErrorNotReady ? cudaGetLastError(), cudaSuccess : error;
  });
}
void block_host_until_done(const SP_Device* device, SP_Stream stream, TF_Status* status) {
  attempt(device, status, "waiting for a stream", [&] { return cudaStreamSynchronize(of(stream)); });
}
/** TensorFlow reports the failure but not the reason, so the reason is also printed on stderr. */
void synchronize_all_activity(const SP_Device* device, TF_Status* status) {
  attempt(device, status, "waiting for the device", [] { return cudaDeviceSynchronize(); });
  if (TF_GetCode(status) != TF_OK) fprintf(stderr, "sparsevila: %s\n", TF_Message(status));
}

void create_event(const SP_Device* device, SP_Event* event, TF_Status* status) {
  *event = nullptr;
  attempt(device, status, "creating an event", [&] {
    cudaEvent_t made;
    const cudaError_t error = cudaEventCreateWithFlags(&made, cudaEventDisableTiming);
    if (error == cudaSuccess) *event = new SP_Event_st{made};
    return error;
  });
}
void destroy_event(const SP_Device* device, SP_Event event) {
  if (!event) return;
  attempt(device, "destroying an event", [&] { return cudaEventDestroy(event->event); });
  delete event;
}
SE_EventStatus get_event_status(const SP_Device* device, SP_Event event) {
  bool is_pending = false;
  const bool is_well = attempt(device, "work before an event", [&] {
    const cudaError_t error = cudaEventQuery(event->event);
    is_pending = error == cudaErrorNotReady;
    return is_pending ? cudaGetLastError(), cudaSuccess : error;
  });
  return !is_well ? SE_EVENT_ERROR : (is_pending ? SE_EVENT_PENDING : SE_EVENT_COMPLETE);
}
void record_event(const SP_Device* device, SP_Stream stream, SP_Event event, TF_Status* status) {
  attempt(device, status, "recording an event", [&] { return cudaEventRecord(event->event, of(stream)); });
}
void wait_for_event(const SP_Device* const device, SP_Stream stream, SP_Event event, TF_Status* const status) {
  attempt(device, status, "waiting for an event", [&] { return cudaStreamWaitEvent(of(stream), event->event, 0); });
}
void block_host_for_event(const SP_Device* device, SP_Event event, TF_Status* status) {
  attempt(device, status, "waiting for an event", [&] { return cudaEventSynchronize(event->event); });
}

void create_timer(const SP_Device* device, SP_Timer* timer, TF_Status* status) {
  *timer = nullptr;
  attempt(device, status, "creating a timer", [&] {
    cudaEvent_t start, stop;
    cudaError_t error = cudaEventCreate(&start);
    if (error != cudaSuccess) return error;
    error = cudaEventCreate(&stop);
    if (error == cudaSuccess) *timer = new SP_Timer_st{start, stop};
    else
      cudaEventDestroy(start);
    return error;
  });
}
void destroy_timer(const SP_Device* device, SP_Timer timer) {
  if (!timer) return;
  attempt(device, "destroying a timer", [&] {
    const cudaError_t error = cudaEventDestroy(timer->start), other = cudaEventDestroy(timer->stop);
    return error == cudaSuccess ? other : error;
  });
  delete timer;
}
void start_timer(const SP_Device* device, SP_Stream stream, SP_Timer timer, TF_Status* status) {
  attempt(device, status, "starting a timer", [&] { return cudaEventRecord(timer->start, of(stream)); });
}
void stop_timer(const SP_Device* device, SP_Stream stream, SP_Timer timer, TF_Status* status) {
  attempt(device, status, "stopping a timer", [&] { return cudaEventRecord(timer->stop, of(stream)); });
}

/** TensorFlow's function and its argument, which the function frees, so it is called once. */
struct HostCallback {
  SE_StatusCallbackFn function;
  void* argument;
};
TF_Bool host_callback(const SP_Device* device, SP_Stream stream, SE_StatusCallbackFn function, void* argument) {
  auto* callback = new HostCallback{function, argument};
  const auto run = [](void* data) {
    auto* call = static_cast<HostCallback*>(data);
    TF_Status* status = TF_NewStatus();
    call->function(call->argument, status);
    if (TF_GetCode(status) != TF_OK) fprintf(stderr, "sparsevila: a host callback failed: %s\n", TF_Message(status));
    TF_DeleteStatus(status);
    delete call;
  };
  const bool is_queued = attempt(device, "enqueuing a host callback", [&] { return cudaLaunchHostFunc(of(stream), run, callback); });
  if (!is_queued) delete callback;
  return is_queued;
}

}  // namespace

uint64_t nanoseconds(SP_Timer timer) {
  float ms = 0;
  if (cudaEventSynchronize(timer->stop) != cudaSuccess || cudaEventElapsedTime(&ms, timer->start, timer->stop) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return uint64_t(double(ms) * 1e6);
}

void add_streams(SP_StreamExecutor& e) {
  e.create_stream = create_stream;
  e.destroy_stream = destroy_stream;
  e.create_stream_dependency = create_stream_dependency;
  e.get_stream_status = get_stream_status;
  e.create_event = create_event;
  e.destroy_event = destroy_event;
  e.get_event_status = get_event_status;
  e.record_event = record_event;
  e.wait_for_event = wait_for_event;
  e.create_timer = create_timer;
  e.destroy_timer = destroy_timer;
  e.start_timer = start_timer;
  e.stop_timer = stop_timer;
  e.block_host_for_event = block_host_for_event;
  e.block_host_until_done = block_host_until_done;
  e.synchronize_all_activity = synchronize_all_activity;
  e.host_callback = host_callback;
}

}  // namespace sv
