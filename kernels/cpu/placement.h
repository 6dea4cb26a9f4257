// Where a parallel region's threads wake up: not on the core of the thread that wakes them.
//
// Between two regions the cores belong to others, to OpenBLAS above all, so OpenMP's threads had better sleep than spin. But
// the scheduler likes to start a woken thread beside its waker, here on the very core where the waker goes on computing;
// it then waits for a time slice, milliseconds (docs/performance.md has both cases). So each of this thread's workers may run
// on every core but its master's, told anew whenever the master has moved. Nobody else's affinity is touched, and where
// the user bound threads (OMP_PROC_BIND), the one core left to the master leaves none for the others, and nothing is done.
#pragma once
#if defined(_OPENMP) && defined(__linux__)
#include <omp.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vector>

namespace c01b {

// The workers of one master thread: OpenMP keeps them from region to region.
class Team {
  public:
    static Team& of_this_thread() {
        static thread_local Team team;
        return team;
    }

    // To be called before a region of that many threads.
    void make_room(int threads) {
        const int core = sched_getcpu();
        if (static_cast<int>(workers_.size()) == threads && core == masters_core_) return;
        if (static_cast<int>(workers_.size()) != threads) find_workers(threads);
        masters_core_ = core;
        cpu_set_t cores;  // a machine of more than 1024 cores is left alone
        if (core < 0 || core >= CPU_SETSIZE || sched_getaffinity(0, sizeof cores, &cores)) return;
        CPU_CLR(core, &cores);
        if (CPU_COUNT(&cores) == 0) return;
        const pid_t process = getpid();
        for (size_t t = 1; t < workers_.size(); ++t) {
            // A worker that OpenMP has ended meanwhile: its number may be another process's by now.
            if (syscall(SYS_tgkill, process, workers_[t], 0) == 0) sched_setaffinity(workers_[t], sizeof cores, &cores);
        }
    }

  private:
    void find_workers(int threads) {
        workers_.assign(threads, 0);
        pid_t* ids = workers_.data();
#pragma omp parallel num_threads(threads)
        ids[omp_get_thread_num()] = static_cast<pid_t>(syscall(SYS_gettid));
    }

    std::vector<pid_t> workers_;  // by OpenMP's thread number; the first is the master
    int masters_core_ = -1;
};

inline void wake_elsewhere(int threads) { Team::of_this_thread().make_room(threads); }

}  // namespace c01b
#else
namespace c01b {
inline void wake_elsewhere(int) {}
}  // namespace c01b
#endif
