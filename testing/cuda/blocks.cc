// The threads of a block are fibers on one OS thread, switched only where they wait for each other: at __syncthreads, at warp
// functions, at their end. When none can run and some have not ended, no thread can ever reach what they wait for: that is
// reported and ends the process. Several OS threads share the blocks of a grid. One file of more than 300 lines, since switching,
// blocks and grids work on the same fibers.

#include "blocks.h"

#include <link.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <numeric>
#include <thread>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace sv_standin {

__thread Current current;

Schedule schedule = {2, 0, 0};

namespace {

constexpr int kThreads = 1024;                // of a block
constexpr size_t kStack = size_t(256) << 10;  // of a fiber, touched as used; its lowest page is a guard
constexpr size_t kShared = size_t(256) << 10;
constexpr size_t kPage = 4096;

// --- switching ---------------------------------------------------------------------------------------------

#if defined(__x86_64__)
using Context = void*;  // the stack pointer; the registers that a call preserves lie on the stack
extern "C" void sv_standin_switch(void** from, void* to);
asm(R"(
.text
.hidden sv_standin_switch
.globl sv_standin_switch
.type sv_standin_switch, @function
sv_standin_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size sv_standin_switch, .-sv_standin_switch
)");
void start(Context& context, char* stack, void (*entry)()) {
  void** top = reinterpret_cast<void**>(stack + kStack) - 2;  // 16-byte aligned: the entry starts as if it had been called
  top[0] = reinterpret_cast<void*>(entry);
  top[1] = nullptr;
  for (int i = 1; i <= 6; i++) top[-i] = nullptr;
  context = top - 6;
}
void change(Context& from, Context& to) { sv_standin_switch(&from, to); }
#else
using Context = ucontext_t;
void start(Context& context, char* stack, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack + kPage;
  context.uc_stack.ss_size = kStack - kPage;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}
void change(Context& from, Context& to) { swapcontext(&from, &to); }
#endif

// --- a block -----------------------------------------------------------------------------------------------

/** Lanes that wait for each other at one warp function. */
struct Meeting {
  const char* function = nullptr;  // null: free
  void (*finish)(Lanes&) = nullptr;
  bool complete = false;
  uint32_t left = 0;  // lanes that have not yet taken their slot
  Lanes lanes;
};

struct Warp {
  uint32_t live, runnable;
  std::vector<std::unique_ptr<Meeting>> meetings;
};

}  // namespace

/** One OS thread's way to run blocks. Stacks and meetings are kept for the next. */
struct Runner {
 public:
  Runner() {
    stacks_ = map(kThreads * kStack);
    for (int i = 0; i < kThreads; i++) mprotect(stacks_ + i * kStack, kPage, PROT_NONE);
    shared_ = map(kShared + kPage);
    mprotect(shared_ + kShared, kPage, PROT_NONE);
    stack_t alternate = {};
    alternate.ss_sp = map(size_t(64) << 10);
    alternate.ss_size = size_t(64) << 10;
    sigaltstack(&alternate, nullptr);  // so that a stack that overflows can be reported
    fibers_.resize(kThreads);
  }
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;
  ~Runner() {
    stack_t none = {};
    none.ss_flags = SS_DISABLE;
    stack_t alternate;
    sigaltstack(&none, &alternate);
    munmap(alternate.ss_sp, size_t(64) << 10);
    munmap(stacks_, kThreads * kStack);
    munmap(shared_, kShared + kPage);
  }

  const Grid* grid() const { return grid_; }

  void run(const Grid& grid, uint3 block);
  void sync_threads();
  void together(const char* function, uint32_t mask, void* data, size_t bytes, void (*finish)(Lanes&));
  unsigned lane() const { return unsigned(current_) % 32; }

 private:
  struct Fiber {
    Context context;
    uint3 index;
    bool at_barrier;
    Meeting* meeting;
  };

  static char* map(size_t bytes) {
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) fprintf(stderr, "stand-in: no memory for stacks\n"), abort();
    return static_cast<char*>(at);
  }
  static void entry();

  int next() const;
  void leave_to(Context& from);
  void end();
  void release();
  void wait() {
    warps_[current_ / 32].runnable &= ~(1u << current_ % 32);
    leave_to(fibers_[size_t(current_)].context);
  }
  void settle(Warp& warp, Meeting& meeting);
  [[noreturn]] void stuck();

  const Grid* grid_ = nullptr;
  char *stacks_, *shared_;
  Context main_;
  std::vector<Fiber> fibers_;
  Warp warps_[kThreads / 32];
  int threads_ = 0, live_ = 0, arrived_ = 0, current_ = 0;
};

void Runner::entry() {
  Runner& self = *current.runner;
  self.grid_->thread();
  self.end();
}

/** The thread to run after the current one, which may be itself: the next, or the one before, around the block. -1: none. */
int Runner::next() const {
  const bool forward = schedule.fibers == 0;
  const int count = (threads_ + 31) / 32, own = current_ / 32, lane = current_ % 32;
  for (int i = 0; i <= count; i++) {
    const int w = ((forward ? own + i : own - i) % count + count) % count;
    uint32_t bits = warps_[w].runnable;
    // In its own warp first what comes after it, and in the end what came before.
    if (i == 0) bits &= forward ? (lane == 31 ? 0u : ~0u << (lane + 1)) : (1u << lane) - 1;
    if (bits != 0) return w * 32 + (forward ? __builtin_ctz(bits) : 31 - __builtin_clz(bits));
  }
  return -1;
}

void Runner::leave_to(Context& from) {
  const int to = live_ == 0 ? -1 : next();
  if (live_ == 0) {
    change(from, main_);
    return;
  }
  if (to < 0) stuck();
  current_ = to;
  current.thread = fibers_[size_t(to)].index;
  if (&fibers_[size_t(to)].context != &from) change(from, fibers_[size_t(to)].context);
}

void Runner::run(const Grid& grid, uint3 block) {
  grid_ = &grid;
  current.block = block;
  current.block_size = {grid.block.x, grid.block.y, grid.block.z};
  current.grid_size = {grid.grid.x, grid.grid.y, grid.grid.z};
  const size_t room = (grid.shared + 15) / 16 * 16;
  current.shared = reinterpret_cast<unsigned char*>(shared_) + kShared - room;
  memset(current.shared, 0xff, room);
  threads_ = live_ = int(grid.block.x * grid.block.y * grid.block.z);
  arrived_ = 0;
  uint3 index = {0, 0, 0};
  for (int i = 0; i < threads_; i++) {
    Fiber& fiber = fibers_[size_t(i)];
    start(fiber.context, stacks_ + size_t(i) * kStack, entry);
    fiber.index = index;
    fiber.at_barrier = false;
    fiber.meeting = nullptr;
    if (++index.x == grid.block.x) index.x = 0, index.y++;
    if (index.y == grid.block.y) index.y = 0, index.z++;
  }
  for (int w = 0; w * 32 < threads_; w++) {
    const int lanes = threads_ - w * 32;
    warps_[w].live = warps_[w].runnable = lanes >= 32 ? ~0u : (1u << lanes) - 1;
  }
  current_ = schedule.fibers == 0 ? threads_ - 1 : 0;  // so that the first is the first, or the last
  leave_to(main_);
  grid_ = nullptr;
}

/** Lets all that wait at __syncthreads go on, when everyone is there. */
void Runner::release() {
  if (live_ == 0 || arrived_ != live_) return;
  arrived_ = 0;
  for (int i = 0; i < threads_; i++) {
    if (!fibers_[size_t(i)].at_barrier) continue;
    fibers_[size_t(i)].at_barrier = false;
    warps_[i / 32].runnable |= 1u << i % 32;
  }
}

void Runner::sync_threads() {
  fibers_[size_t(current_)].at_barrier = true;
  arrived_++;
  warps_[current_ / 32].runnable &= ~(1u << current_ % 32);
  release();
  leave_to(fibers_[size_t(current_)].context);
}

/** Completes a meeting when every lane that it asks for and that has not ended is there. */
void Runner::settle(Warp& warp, Meeting& meeting) {
  if (meeting.function == nullptr || meeting.complete || (meeting.lanes.mask & warp.live & ~meeting.lanes.present) != 0) return;
  if (meeting.finish) meeting.finish(meeting.lanes);
  meeting.complete = true;
  meeting.left = meeting.lanes.present;
  warp.runnable |= meeting.lanes.present;
}

void Runner::together(const char* function, uint32_t mask, void* data, size_t bytes, void (*finish)(Lanes&)) {
  const int self = current_ % 32;
  Warp& warp = warps_[current_ / 32];
  if (!(mask >> self & 1)) {
    fprintf(stderr, "stand-in: %s: lane %d calls %s with mask %08x, which leaves it out\n", grid_->name, self, function, mask);
    abort();
  }
  Meeting* meeting = nullptr;
  for (auto& m : warp.meetings)
    if (m->function && !m->complete && m->lanes.mask == mask && strcmp(m->function, function) == 0) meeting = m.get();
  for (size_t i = 0; !meeting && i < warp.meetings.size(); i++)
    if (!warp.meetings[i]->function) meeting = warp.meetings[i].get();
  if (!meeting) {
    warp.meetings.push_back(std::make_unique<Meeting>());
    meeting = warp.meetings.back().get();
  }
  if (!meeting->function) {
    meeting->function = function;
    meeting->finish = finish;
    meeting->complete = false;
    meeting->lanes.mask = mask;
    meeting->lanes.present = 0;
    if (bytes != 0) memset(meeting->lanes.slot, 0xff, sizeof meeting->lanes.slot);
  }
  meeting->lanes.present |= 1u << self;
  if (bytes != 0) memcpy(meeting->lanes.slot[self], data, bytes);
  settle(warp, *meeting);
  if (!meeting->complete) {
    fibers_[size_t(current_)].meeting = meeting;
    wait();
    fibers_[size_t(current_)].meeting = nullptr;
  }
  if (bytes != 0) memcpy(data, meeting->lanes.slot[self], bytes);
  meeting->left &= ~(1u << self);
  if (meeting->left == 0) meeting->function = nullptr;
}

/** The current thread has returned: whoever waits no longer waits for it. */
void Runner::end() {
  Warp& warp = warps_[current_ / 32];
  warp.live &= ~(1u << current_ % 32);
  warp.runnable &= ~(1u << current_ % 32);
  live_--;
  for (auto& meeting : warp.meetings) settle(warp, *meeting);
  release();
  leave_to(fibers_[size_t(current_)].context);
}

void Runner::stuck() {
  fprintf(stderr, "stand-in: %s, block (%u, %u, %u): its threads wait for each other for ever.\n", grid_->name, current.block.x,
          current.block.y, current.block.z);
  int lines = 0;
  for (int i = 0; i < threads_; i++) {
    if (!(warps_[i / 32].live >> i % 32 & 1)) continue;
    const Fiber& fiber = fibers_[size_t(i)];
    char what[80] = "__syncthreads";
    if (fiber.meeting) snprintf(what, sizeof what, "%s with mask %08x", fiber.meeting->function, fiber.meeting->lanes.mask);
    if (lines++ < 40) fprintf(stderr, "  thread (%u, %u, %u), warp %d: %s\n", fiber.index.x, fiber.index.y, fiber.index.z, i / 32, what);
  }
  fprintf(stderr, "  %d of %d threads have not ended. Every thread that has not returned must reach each __syncthreads, every lane of a mask its warp function.\n",
          live_, threads_);
  abort();
}

namespace {

// --- a grid ------------------------------------------------------------------------------------------------

/** Where __shared__ variables lie: in the thread-local memory of this library, of which nothing else but `current` is used by
 * OS threads that run blocks. */
struct ThreadMemory {
  size_t bytes = 0, before = 0;  // in all; before `current`
  ThreadMemory() {
    dl_iterate_phdr(look, this);
    if (bytes == 0) fprintf(stderr, "stand-in: shared memory not found among the loaded libraries\n"), abort();
  }
  static int look(dl_phdr_info* library, size_t, void* self) {
    auto* found = static_cast<ThreadMemory*>(self);
    const char *own = reinterpret_cast<const char*>(&current), *begin = static_cast<const char*>(library->dlpi_tls_data);
    for (int i = 0; begin && i < library->dlpi_phnum; i++) {
      if (library->dlpi_phdr[i].p_type != PT_TLS || own < begin || own >= begin + library->dlpi_phdr[i].p_memsz) continue;
      found->bytes = library->dlpi_phdr[i].p_memsz;
      found->before = size_t(own - begin);
    }
    return 0;
  }
};
/** So that no kernel finds in a __shared__ variable what a kernel before it left there. */
void forget_shared() {
  static const ThreadMemory memory;
  char* own = reinterpret_cast<char*>(&current);
  memset(own - memory.before, 0xff, memory.before);
  memset(own + sizeof current, 0xff, memory.bytes - memory.before - sizeof current);
}

/** A grid whose blocks several OS threads take one after the other. */
struct Shared {
  const Grid& grid;
  int64_t count, step;  // of blocks; between blocks in the order of running
  std::atomic<int64_t> next{0};
  explicit Shared(const Grid& g) : grid(g), count(int64_t(g.grid.x) * g.grid.y * g.grid.z), step(1) {
    for (step = count * 5 / 8 | 1; std::gcd(step, count) != 1;) step += 2;
  }
  void work() {
    if (!current.runner) current.runner = new Runner;
    forget_shared();
    for (int64_t i; (i = next.fetch_add(1)) < count;) {
      const int64_t at = schedule.blocks == 0 ? i : (schedule.blocks == 1 ? count - 1 - i : int64_t(__int128(i) * step % count));
      current.runner->run(grid, {unsigned(at % grid.grid.x), unsigned(at / grid.grid.x % grid.grid.y), unsigned(at / grid.grid.x / grid.grid.y)});
    }
  }
};

/** The OS threads that help a stream's own with its blocks, one grid at a time. */
class Helpers {
 public:
  void run(Shared& job, int helpers) {
    std::lock_guard<std::mutex> one_at_a_time(turn_);
    std::unique_lock<std::mutex> lock(mutex_);
    while (count_ < helpers) {
      std::thread([this, index = count_++] { serve(index); }).detach();
    }
    job_ = &job;
    wanted_ = helpers;
    busy_ = helpers;
    round_++;
    wake_.notify_all();
    lock.unlock();
    job.work();
    lock.lock();
    done_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  void serve(int index) {
    uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return round_ != seen && index < wanted_ && busy_ > 0; });
      seen = round_;
      Shared* job = job_;
      lock.unlock();
      job->work();
      lock.lock();
      if (--busy_ == 0) done_.notify_all();
    }
  }

  std::mutex turn_, mutex_;
  std::condition_variable wake_, done_;
  Shared* job_ = nullptr;
  int count_ = 0, wanted_ = 0, busy_ = 0;
  uint64_t round_ = 0;
};

}  // namespace

void run_grid(const Grid& grid) {
  static Helpers* const helpers = new Helpers;  // never destroyed: its threads outlive main
  Shared job(grid);
  const int64_t others = std::min<int64_t>(schedule.threads, job.count) - 1;
  if (others > 0) helpers->run(job, int(others));
  else job.work();
}

void end_thread() {
  delete current.runner;
  current.runner = nullptr;
}

bool running(char* text, size_t size) {
  const Grid* grid = current.runner ? current.runner->grid() : nullptr;
  snprintf(text, size, "the host");
  if (grid)
    snprintf(text, size, "%s, block (%u, %u, %u), thread (%u, %u, %u),", grid->name, current.block.x, current.block.y, current.block.z,
             current.thread.x, current.thread.y, current.thread.z);
  return grid != nullptr;
}

void warp_together(const char* function, uint32_t mask, void* data, size_t bytes, void (*finish)(Lanes&)) {
  current.runner->together(function, mask, data, bytes, finish);
}
void sync_threads() { current.runner->sync_threads(); }
unsigned lane() { return current.runner->lane(); }

}  // namespace sv_standin
