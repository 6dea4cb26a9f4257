// Table: a std::vector whose memory the thread keeps when the table goes, for the next one of about that size. Each call of a
// kernel makes the tables of its plan anew (the Spans of an Axis, above all); so it allocates nothing once it has been called.
//
//     free_[6]  -> 64 bytes -> 64 bytes            blocks are powers of two, each list those of one size
//     free_[7]  -> 128 bytes
//     ...
//
// Not for tables that live as long as the thread: they may outlive the lists.
#pragma once
#include <cstddef>
#include <new>
#include <vector>

namespace c01b {

class KeptBlocks {
  public:
    static KeptBlocks& of_this_thread() {
        static thread_local KeptBlocks blocks;
        return blocks;
    }

    void* take(size_t bytes) {
        const int rank = rank_of(bytes);
        if (!keeps(rank)) return ::operator new(bytes);
        Block* block = free_[rank];
        if (!block) return ::operator new(size_t{1} << rank);
        free_[rank] = block->next;
        return block;
    }

    void put(void* memory, size_t bytes) {
        const int rank = rank_of(bytes);
        if (!keeps(rank)) return ::operator delete(memory);
        free_[rank] = new (memory) Block{free_[rank]};
    }

    ~KeptBlocks() {
        for (Block* block : free_)
            while (block) {
                Block* next = block->next;
                ::operator delete(block);
                block = next;
            }
    }

  private:
    struct Block {
        Block* next;
    };

    static constexpr int smallest = 6, largest = 20;  // 64 bytes to 1 MB: a plan of ordinary sizes has no larger table

    static int rank_of(size_t bytes) {
        int rank = smallest;
        while (rank <= largest && size_t{1} << rank < bytes) ++rank;
        return rank;
    }

    // AddressSanitizer is to see each table come and go.
    static bool keeps(int rank) {
#ifdef __SANITIZE_ADDRESS__
        return false;
#endif
        return rank <= largest;
    }

    Block* free_[largest + 1] = {};
};

template <class T>
struct Kept {
    using value_type = T;

    Kept() = default;
    template <class U>
    Kept(const Kept<U>&) {}

    T* allocate(size_t count) { return static_cast<T*>(KeptBlocks::of_this_thread().take(count * sizeof(T))); }
    void deallocate(T* memory, size_t count) { KeptBlocks::of_this_thread().put(memory, count * sizeof(T)); }

    friend bool operator==(const Kept&, const Kept&) { return true; }
    friend bool operator!=(const Kept&, const Kept&) { return false; }
};

template <class T>
using Table = std::vector<T, Kept<T>>;

}  // namespace c01b
