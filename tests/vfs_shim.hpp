// A SQLite VFS that lets a test act in the middle of a checkpoint, at the two moments that matter.
#pragma once

#include <sqlite3.h>

#include <functional>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

namespace support {

/// A VFS in front of the default one, registered under a name of its own while it lives.
///
///     VfsShim shim;
///     shim.in_checkpoint = [&] { other.execute("INSERT ..."); };
///     auto store = sourced::open_store({.path = path, .vfs = shim.name()});
///
/// Hooks run on the thread that checkpoints, each only once; a hook that is empty does nothing.
class VfsShim {
public:
    VfsShim() : under_(sqlite3_vfs_find(nullptr)), name_("sourced-shim-" + std::to_string(++registered())) {
        vfs_ = *under_;
        vfs_.zName = name_.c_str();
        vfs_.pNext = nullptr;
        vfs_.pAppData = this;
        vfs_.szOsFile = static_cast<int>(sizeof(File)) + under_->szOsFile;
        vfs_.xOpen = [](sqlite3_vfs* vfs, const char* path, sqlite3_file* file, int flags, int* out) {
            return static_cast<VfsShim*>(vfs->pAppData)->open(path, file, flags, out);
        };
        if (sqlite3_vfs_register(&vfs_, 0) != SQLITE_OK) throw std::runtime_error("the VFS cannot be registered");
    }
    VfsShim(const VfsShim&) = delete;
    VfsShim& operator=(const VfsShim&) = delete;
    ~VfsShim() { sqlite3_vfs_unregister(&vfs_); }

    [[nodiscard]] const std::string& name() const noexcept { return name_; }

    std::function<void()> before_checkpoint{};  ///< just before a connection takes the checkpointer's lock
    std::function<void()> in_checkpoint{};      ///< it has read how far the WAL goes, and has not begun to copy

private:
    /// Our part of an open file; the real one's memory lies behind it.
    struct File {
        sqlite3_file base;
        VfsShim* shim;
        bool checkpoints;  // this connection holds the checkpointer's lock
    };
    static constexpr int checkpoint_lock = 1;  // WAL_CKPT_LOCK

    static int& registered() {
        static int count = 0;
        return count;
    }
    static File* ours(sqlite3_file* file) { return reinterpret_cast<File*>(file); }
    static sqlite3_file* real(sqlite3_file* file) { return reinterpret_cast<sqlite3_file*>(ours(file) + 1); }

    static void fire(std::function<void()>& hook) {
        if (hook) std::exchange(hook, nullptr)();
    }

    int open(const char* path, sqlite3_file* file, int flags, int* out) {
        new (file) File{{nullptr}, this, false};
        const int code = under_->xOpen(under_, path, real(file), flags, out);
        if (real(file)->pMethods) file->pMethods = methods();
        return code;
    }

    static const sqlite3_io_methods* methods() {
        static const sqlite3_io_methods methods = [] {
            sqlite3_io_methods m{};
            m.iVersion = 3;
            m.xClose = [](sqlite3_file* f) { return real(f)->pMethods->xClose(real(f)); };
            m.xRead = [](sqlite3_file* f, void* to, int size, sqlite3_int64 at) {
                return real(f)->pMethods->xRead(real(f), to, size, at);
            };
            m.xWrite = [](sqlite3_file* f, const void* from, int size, sqlite3_int64 at) {
                return real(f)->pMethods->xWrite(real(f), from, size, at);
            };
            m.xTruncate = [](sqlite3_file* f, sqlite3_int64 size) {
                return real(f)->pMethods->xTruncate(real(f), size);
            };
            m.xSync = [](sqlite3_file* f, int flags) { return real(f)->pMethods->xSync(real(f), flags); };
            m.xFileSize = [](sqlite3_file* f, sqlite3_int64* size) {
                return real(f)->pMethods->xFileSize(real(f), size);
            };
            m.xLock = [](sqlite3_file* f, int lock) { return real(f)->pMethods->xLock(real(f), lock); };
            m.xUnlock = [](sqlite3_file* f, int lock) { return real(f)->pMethods->xUnlock(real(f), lock); };
            m.xCheckReservedLock = [](sqlite3_file* f, int* out) {
                return real(f)->pMethods->xCheckReservedLock(real(f), out);
            };
            m.xFileControl = [](sqlite3_file* f, int what, void* value) {
                return real(f)->pMethods->xFileControl(real(f), what, value);
            };
            m.xSectorSize = [](sqlite3_file* f) { return real(f)->pMethods->xSectorSize(real(f)); };
            m.xDeviceCharacteristics = [](sqlite3_file* f) {
                return real(f)->pMethods->xDeviceCharacteristics(real(f));
            };
            m.xShmMap = [](sqlite3_file* f, int page, int size, int extend, void volatile** out) {
                return real(f)->pMethods->xShmMap(real(f), page, size, extend, out);
            };
            m.xShmLock = [](sqlite3_file* f, int first, int count, int flags) {
                const bool checkpointer = first == checkpoint_lock && count == 1 && (flags & SQLITE_SHM_EXCLUSIVE) != 0;
                if (checkpointer && (flags & SQLITE_SHM_LOCK) != 0) fire(ours(f)->shim->before_checkpoint);
                const int code = real(f)->pMethods->xShmLock(real(f), first, count, flags);
                if (checkpointer) ours(f)->checkpoints = code == SQLITE_OK && (flags & SQLITE_SHM_LOCK) != 0;
                return code;
            };
            m.xShmBarrier = [](sqlite3_file* f) { real(f)->pMethods->xShmBarrier(real(f)); };
            m.xShmUnmap = [](sqlite3_file* f, int remove) { return real(f)->pMethods->xShmUnmap(real(f), remove); };
            m.xFetch = [](sqlite3_file* f, sqlite3_int64 at, int size, void** out) {
                return real(f)->pMethods->xFetch(real(f), at, size, out);
            };
            m.xUnfetch = [](sqlite3_file* f, sqlite3_int64 at, void* page) {
                // SQLite lets go of its mapping here because the WAL it has just looked at is another one.
                if (ours(f)->checkpoints && !page) fire(ours(f)->shim->in_checkpoint);
                return real(f)->pMethods->xUnfetch(real(f), at, page);
            };
            return m;
        }();
        return &methods;
    }

    sqlite3_vfs* under_;
    std::string name_;
    sqlite3_vfs vfs_{};
};

}  // namespace support
