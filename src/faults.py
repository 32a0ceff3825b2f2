"""What the machine refuses, in one line with a way out: a full disk, too little memory, a worker that was killed."""

import errno

WAYS = {
    errno.ENOSPC: "make room; what was written before is whole, and train.py goes on with --resume",
    errno.EDQUOT: "make room within your quota; what was written before is whole, and train.py goes on with --resume",
    errno.EFBIG: "files may not become that large here (ulimit -f, or the file system)",
    errno.EROFS: "run the command in a folder that can be written to",
    errno.EACCES: "change its permissions, or run the command in a folder of your own",
    errno.EPERM: "change its permissions, or run the command in a folder of your own",
    errno.EMFILE: "raise the limit (ulimit -n 4096), or use fewer --data.workers",
    errno.ENFILE: "close other programs, or use fewer --data.workers",
    errno.EAGAIN: "raise the limit of processes (ulimit -u), or use fewer --data.workers",
    errno.ENOMEM: "use fewer --data.workers, or smaller batches (--train.batch_size, --predict.batch_size)",
}
MEMORY = f"the memory is full: {WAYS[errno.ENOMEM]}"
SHARED = (
    "the processes that load pictures found no room in shared memory (/dev/shm): --data.workers 0 does without it, fewer "
    "workers or smaller batches need less, and docker run --shm-size=8g gives more"
)
WORKER = (
    "a process that loads pictures was killed, most likely because the memory is full: use fewer --data.workers (0: none), or "
    "smaller batches; train.py goes on with --resume"
)
THREADS = f"the system starts no more threads or processes: {WAYS[errno.EAGAIN]}"
GPU = "the GPU's memory is full: use smaller batches (--train.batch_size, --predict.batch_size)"

# Torch has one type for all of these, RuntimeError, so that only its words tell them apart (torch 2.15). The first that fits.
TORCH = {
    "out of shared memory": SHARED,
    "shared memory": SHARED,
    "</torch_": SHARED,
    "DataLoader worker": WORKER,
    "Too many open files": f"too many open files: {WAYS[errno.EMFILE]}",
    "ancdata": f"too many open files: {WAYS[errno.EMFILE]}",  # the pipe had room for no file
    "can't start new thread": THREADS,
    "Resource temporarily unavailable": THREADS,
    "can't allocate memory": MEMORY,
    "CUDA out of memory": GPU,
}


def explain(error: BaseException) -> str | None:
    """One line that says what the machine refused, and what helps; None where the error is none of the machine's."""
    if isinstance(error, OSError):
        return _of_the_system(error)
    if isinstance(error, MemoryError):
        return MEMORY
    if isinstance(error, RecursionError):
        return "something is nested too deeply to be read: most likely a YAML or JSON file"
    if isinstance(error, RuntimeError):
        return next((said for words, said in TORCH.items() if words in str(error)), None)
    return None


def _of_the_system(error: OSError) -> str:
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    way = WAYS.get(error.errno or 0)
    return ": ".join([*names[:1], reason]) + (f"; {way}" if way else "")
