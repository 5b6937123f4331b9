"""An act that is awaited in a loop and done at once in a thread, by raw calls; with a real
application, test_handling.py.
"""

import asyncio
import threading

import pytest

from fastticket.web.acts import Acts


async def where():
    """The thread that runs this."""
    await asyncio.sleep(0)
    return threading.current_thread()


async def fail():
    raise LookupError("a mistake")


async def test_awaited_it_is_done_then():
    acts = Acts()
    act = acts.call("where", where)
    with pytest.raises(RuntimeError, match=r"where: called without `await`"):
        acts.refuse_forgotten()
    assert await act is threading.current_thread()


@pytest.mark.parametrize("how", [asyncio.create_task, asyncio.gather, asyncio.ensure_future])
async def test_what_takes_coroutines_takes_it(how):
    acts = Acts()
    task = how(acts.call("where", where))
    await asyncio.sleep(0)
    acts.refuse_forgotten()
    await task


async def test_a_task_of_it_can_be_cancelled():
    acts, ended = Acts(), []

    async def wait():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    task = asyncio.create_task(acts.call("wait", wait))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["cancelled"]


async def test_what_was_closed_was_not_forgotten():
    acts = Acts()
    acts.call("where", where).close()
    acts.refuse_forgotten()


async def test_in_a_thread_the_loop_does_it_and_the_thread_has_the_result():
    acts, loops_thread = Acts(), threading.current_thread()
    assert await asyncio.to_thread(acts.call, "where", where) is loops_thread
    with pytest.raises(LookupError, match="a mistake"):
        await asyncio.to_thread(acts.call, "fail", fail)
    acts.refuse_forgotten()


async def test_all_that_were_forgotten_are_named_once():
    acts = Acts()
    for name in ("logout", "rotate", "logout"):
        acts.call(name, where)
    with pytest.raises(RuntimeError, match=r"^logout, rotate: called"):
        acts.refuse_forgotten()
    acts.refuse_forgotten()
