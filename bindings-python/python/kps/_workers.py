"""Where tasks of `compute` that are written in Python run: on the loop, in threads, in processes of their own.

Who runs next, fairness and deadlines are the native module's. Here a job runs until it ends, or until nobody waits
for it any more; then the process that is at it is killed and another one takes its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib
import inspect
import io
import os
import pickle
import queue
import threading
import traceback
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from .errors import InternalError, InvalidArgumentError, UnavailableError

# Threads that run what nobody waits for any more; with more of them the task is refused.
_STRAYS = 64


async def prepare(function: Callable[[Any], Any] | str, isolated: bool, concurrency: int | None) -> tuple[Any, int]:
    """What has the method `run`, and how many runs it has room for. A function that no worker can have is refused."""
    if concurrency is not None and (not isinstance(concurrency, int) or concurrency < 1):
        raise InvalidArgumentError(f"concurrency is {concurrency!r}; it is a whole number from 1")
    if not isinstance(function, str) and not callable(function):
        raise InvalidArgumentError(f"function is {type(function).__name__}; it is a function or 'module:name'")
    if not isolated:
        return _beside(find(function) if isinstance(function, str) else function, concurrency)
    count = concurrency or _cores()
    pickled = _pickled(function)
    crew = Crew(lambda: _Process(pickled), count)
    task = Elsewhere(crew)
    # The first worker tells whether it finds the function; the others start when they are needed.
    try:
        await crew.run(_NOTHING)
    except Exception as error:
        raise InvalidArgumentError(f"no worker can have the function: {type(error).__name__}: {error}") from error
    return task, count


def _beside(function: Callable[[Any], Any], concurrency: int | None) -> tuple[Any, int]:
    if _is_async(function):
        return OnLoop(function), concurrency or 256
    count = concurrency or _cores()
    return Elsewhere(Crew(lambda: _Here(function), count, strays=_STRAYS)), count


def find(path: str) -> Any:
    """The function at `module:name`."""
    module, _, name = path.partition(":")
    if not module or not name:
        raise InvalidArgumentError(f"function is {path!r}; written as text it is 'module:name'")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _pickled(function: Callable[[Any], Any] | str) -> bytes:
    try:
        return pickle.dumps(function)
    except Exception as error:
        raise InvalidArgumentError(
            f"an isolated task is a function that a worker can import, at the top level of a module: {error}"
        ) from error


def _is_async(function: Any) -> bool:
    call = getattr(function, "__call__", None)  # noqa: B004 — its kind is asked for, not whether it is there
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class OnLoop:
    """An async function, on the loop."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    async def run(self, data: Any) -> Any:
        return await self._function(data)

    def close(self) -> None:
        pass


class Elsewhere:
    """A function that threads or processes run; they end with this object."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self.close = weakref.finalize(self, crew.close)

    async def run(self, data: Any) -> Any:
        return await self._crew.run(data)


class _Runner(Protocol):
    def begin(self) -> None: ...
    def run(self, data: Any) -> Any: ...
    def stop(self) -> None: ...
    def end(self) -> object: ...


class _Job:
    """One run of the function."""

    def __init__(self, data: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.context = contextvars.copy_context()
        self.data = data
        self.runner: _Runner | None = None
        self.left = False

    def tell(self, result: Any, error: BaseException | None) -> None:
        # The loop may be closed: then nobody waits.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._finish, result, error)

    def _finish(self, result: Any, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        elif isinstance(error, StopIteration):
            # No future takes it.
            self.future.set_exception(RuntimeError(f"StopIteration: {error}"))
        else:
            self.future.set_exception(error)


class Crew:
    """Threads that take jobs, each with a runner; they start when they are needed, and stay."""

    def __init__(self, make: Callable[[], _Runner], size: int, *, strays: int = 0) -> None:
        self._make = make
        self._size = size
        self._most_strays = strays
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._runners: list[_Runner] = []
        self._open = 0
        self._strays = 0
        self._closed = False

    async def run(self, data: Any) -> Any:
        job = _Job(data)
        self._submit(job)
        try:
            return await job.future
        except asyncio.CancelledError:
            self._leave(job)
            raise
        finally:
            # An exception knows this frame: they must not hold each other.
            del job

    def close(self) -> None:
        """Ends all of it, whatever it does."""
        with self._lock:
            self._closed = True
            runners = list(self._runners)
            for runner in runners:
                runner.stop()
                self._jobs.put(None)

    def _submit(self, job: _Job) -> None:
        with self._lock:
            if self._closed:
                raise UnavailableError("the task was taken away")
            if self._most_strays and self._strays >= self._most_strays:
                raise UnavailableError(
                    f"{self._strays} threads still run this task for nobody, since no thread can be ended from "
                    "outside; register it with isolated=True"
                )
            self._open += 1
            if self._open > len(self._runners) and len(self._runners) < self._size + self._strays:
                runner = self._make()
                thread = threading.Thread(target=self._keep, args=(runner,), name="kps-task", daemon=True)
                thread.start()
                self._runners.append(runner)
        self._jobs.put(job)

    def _leave(self, job: _Job) -> None:
        with self._lock:
            job.left = True
            if job.runner is not None:
                self._strays += bool(self._most_strays)
                job.runner.stop()

    def _keep(self, runner: _Runner) -> None:
        while (job := self._jobs.get()) is not None:
            self._do(runner, job)
            del job
        runner.end()

    def _do(self, runner: _Runner, job: _Job) -> None:
        with self._lock:
            if job.left or self._closed:
                self._open -= 1
                job.tell(None, UnavailableError("the task was taken away"))
                return
            job.runner = runner
            runner.begin()
        result: Any = None
        error: BaseException | None = None
        try:
            result = job.context.run(runner.run, job.data)
        except Exception as raised:
            error = raised
        except BaseException as raised:
            # What ends a program must not end this one.
            error = RuntimeError(f"{type(raised).__name__}: {raised}")
        with self._lock:
            job.runner = None
            self._open -= 1
            if job.left:
                self._strays -= bool(self._most_strays)
        job.tell(result, error)
        # An exception knows this frame: they must not hold each other.
        del job, error, result


class _Here:
    """Runs the function in the thread that asks."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def run(self, data: Any) -> Any:
        result = self._function(data)
        return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result

    def begin(self) -> None:
        pass

    def stop(self) -> None:
        """No thread can be ended from outside."""

    def end(self) -> None:
        pass


async def _awaited(result: Any) -> Any:
    return await result


# Processes.

_NOTHING = object()
# `multiprocessing` looks after all children whenever it starts one, which two threads must not do at once.
_children = threading.Lock()


def _spawn() -> Any:
    import multiprocessing

    # A forked child would have the locks of this process' threads, and not the threads.
    return multiprocessing.get_context("spawn")


class _Process:
    """Runs the function in a process. One that ended is replaced when the next job comes: a program that ends begins
    nothing any more."""

    def __init__(self, pickled: bytes) -> None:
        self._pickled = pickled
        self._lock = threading.Lock()
        self._process: Any = None
        self._connection: Any = None
        self._stopped = False

    def begin(self) -> None:
        with self._lock:
            self._stopped = False

    def run(self, data: Any) -> Any:
        # Before anything is sent: what cannot be pickled costs no worker.
        sent = None if data is _NOTHING else dumps(data)
        if not self._is_alive():
            self.end()
            self._start()
        if sent is None:
            return None
        try:
            self._connection.send_bytes(sent)
            answer = self._connection.recv_bytes()
        except (EOFError, OSError):
            how = self.end()
            raise InternalError(f"the worker of the task {how} while it ran it; another one takes its place") from None
        return _read(answer)

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def _is_alive(self) -> bool:
        with _children:
            return self._process is not None and self._process.is_alive()

    def _start(self) -> None:
        ours, theirs = _spawn().Pipe()
        process = _spawn().Process(target=serve, args=(theirs, self._pickled), name="kps-worker", daemon=True)
        try:
            with _children:
                process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        with self._lock:
            self._process, self._connection = process, ours
            if self._stopped:
                process.kill()
        try:
            answer = ours.recv_bytes()
        except (EOFError, OSError):
            how = self.end()
            raise InternalError(f"the worker of the task {how} before it was ready") from None
        try:
            _read(answer)
        except BaseException:
            self.end()
            raise

    def end(self) -> str:
        with self._lock:
            process, connection = self._process, self._connection
            self._process = self._connection = None
        if process is None:
            return "did not start"
        connection.close()
        process.kill()
        with _children:
            process.join()
            code = process.exitcode
        return f"ended with exit code {code}" if code is None or code >= 0 else f"was ended by signal {-code}"


class _RemoteTraceback(Exception):
    """Where in the worker it was raised."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


def _read(answer: bytes) -> Any:
    ok, result, text = pickle.loads(answer)
    if ok:
        return result
    raise result from _RemoteTraceback(text)


class _Pickler(pickle.Pickler):
    """Also takes arrays as tasks are given them."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, memoryview):
            return _view, (obj.tobytes(), obj.format.lstrip("@=<"), obj.shape)
        return NotImplemented


def _view(data: bytes, kind: Any, shape: tuple[int, ...]) -> memoryview:
    view = memoryview(data)
    return view.cast(kind) if not shape or 0 in shape else view.cast(kind, shape)


def dumps(value: Any) -> bytes:
    file = io.BytesIO()
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(value)
    return file.getvalue()


# In the worker.


def serve(connection: Any, pickled: bytes) -> None:
    """Runs the function on whatever comes, until the connection ends."""
    import multiprocessing
    import signal

    # Ctrl-C is for the program that started it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    try:
        function = pickle.loads(pickled)
        function = find(function) if isinstance(function, str) else function
    except BaseException as error:
        connection.send_bytes(_failed(error))
        return
    connection.send_bytes(dumps((True, None, "")))
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            connection.send_bytes(_answer(function, connection.recv_bytes()))


def _answer(function: Callable[[Any], Any], data: bytes) -> bytes:
    try:
        return dumps((True, _Here(function).run(pickle.loads(data)), ""))
    except BaseException as error:
        return _failed(error)


def _failed(error: BaseException) -> bytes:
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        answer = dumps((False, error, text))
        # Some exceptions can be written and not be read.
        pickle.loads(answer)
    except BaseException:
        return dumps((False, RuntimeError(f"{type(error).__name__}: {error}"), text))
    return answer


def _end_with(sentinel: int) -> None:
    """A worker whose program died has nobody to work for."""
    from multiprocessing.connection import wait

    wait([sentinel])
    os._exit(1)
