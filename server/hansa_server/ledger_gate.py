"""Before every method of the ledger service: who may ask, how much each party takes, and what is told when something goes wrong.

Needs grpcio.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import grpc

from hansa.errors import HansaError, ProblemsError, ProofError, UsageError
from hansa.ledger.errors import LogStoreError
from hansa_server.admission import Admission

CALLS_EACH = 8  # of one party at the same time, over all of its connections
TALK_S = 30.0  # for how long a client may take to say what it asks, or to take an answer of one piece
_NON_BLOCKING = "experimental_non_blocking"  # marks the one method of health that keeps no thread
_log = logging.getLogger(__name__)


class Refusal(Exception):  # noqa: N818  # what a client is told, not a failure of the service
    """What is told to whom asked: a status and words that say nothing about the inside."""

    def __init__(self, status: grpc.StatusCode, words: str) -> None:
        super().__init__(words)
        self.status, self.words = status, words


class Shares:
    """How much each party takes of the service at the same time, so that none shuts out the others.

    Args:
        each: at most.
        words: what is told to who wants more.
    """

    def __init__(self, each: int, words: str) -> None:
        self._each, self._words = each, words
        self._lock, self._taken = threading.Lock(), Counter[str]()

    def take(self, name: str) -> None:
        """Take a share, which is to be given back.

        Raises:
            Refusal: this party has all that it may.
        """
        with self._lock:
            if self._taken[name] >= self._each:
                raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, self._words)
            self._taken[name] += 1

    def give_back(self, name: str) -> None:
        """Give a share back."""
        with self._lock:
            self._taken[name] -= 1
            if not self._taken[name]:
                del self._taken[name]

    @contextmanager
    def taken(self, name: str) -> Iterator[None]:
        """A share meanwhile; see `take`."""
        self.take(name)
        try:
            yield
        finally:
            self.give_back(name)

    @contextmanager
    def taken_by_call(self, name: str, context: grpc.ServicerContext) -> Iterator[None]:
        """A share until the thread has left the call and the call has ended, whichever comes later.

        An answer that nobody reads keeps its memory after the method that made it returned, and a method whose client
        left keeps its thread: either alone would let a party take as many as it likes. See `take`.
        """
        self.take(name)
        ends = count(1)

        def ended() -> None:
            if next(ends) == 2:
                self.give_back(name)

        if not context.add_callback(ended):
            ended()  # it is over already
        try:
            yield
        finally:
            ended()


class Gate(grpc.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Stands before every method of every service: admits, shares out, and turns what goes wrong into a status.

    Args:
        admission: who may ask.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission, self._shares = admission, Shares(CALLS_EACH, "too many calls at once")

    def admit(self, context: grpc.ServicerContext) -> str:
        """Check who asks.

        Returns:
            Its name.

        Raises:
            Refusal: nobody who may.
        """
        shown = context.auth_context().get("x509_pem_cert", [])
        try:
            if len(shown) != 1:
                raise UsageError("TLS tells of no certificate")
            return self._admission.admit(shown[0])
        except HansaError as error:
            _log.warning(
                "%(peer)s was refused: %(why)s",
                {"peer": context.peer(), "error": error, "why": f"{error.code}: {_reason(error)}"},
            )
            raise Refusal(grpc.StatusCode.PERMISSION_DENIED, "not admitted") from None

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Wrap a method."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        # Each method is taken as one that may be asked several things, which is the same on the wire: of the others gRPC
        # waits for the question before anything here runs, for as long as who asks likes, and in a thread of the pool.
        if handler.response_streaming:
            make, wrap = grpc.stream_stream_rpc_method_handler, self._streamed
            method = handler.stream_stream or handler.unary_stream
        else:
            make, wrap = grpc.stream_unary_rpc_method_handler, self._once
            method = handler.stream_unary or handler.unary_unary
        return make(
            wrap(method, talking=bool(handler.request_streaming)),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    @contextmanager
    def _admitted(self, context: grpc.ServicerContext) -> Iterator[None]:
        """What goes wrong is told; whoever asks is admitted, and has a share."""
        with _told(context), self._shares.taken_by_call(self.admit(context), context):
            yield

    def _once(self, method: Callable[..., Any], *, talking: bool) -> Callable[..., Any]:
        def answer(asked: Iterator[Any], context: grpc.ServicerContext) -> Any:
            with self._admitted(context):
                in_time = _limit(context)
                if not context.add_callback(in_time):  # until the answer has been taken
                    in_time()
                return method(asked if talking else _one(asked), context)

        return answer

    def _streamed(self, method: Callable[..., Any], *, talking: bool) -> Callable[..., Any]:
        if getattr(method, _NON_BLOCKING, False):

            def hand_over(
                asked: Iterator[Any], context: grpc.ServicerContext, send: Callable[..., None]
            ) -> None:
                with self._admitted(context):
                    method(self._one_in_time(asked, context), context, send)

            setattr(hand_over, _NON_BLOCKING, True)
            return hand_over

        def answer(asked: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            with self._admitted(context):
                if not talking:
                    yield from method(self._one_in_time(asked, context), context)
                    return
                in_time = _limit(context)
                try:
                    yield from method(asked, context)
                finally:
                    in_time()

        return answer

    @staticmethod
    def _one_in_time(asked: Iterator[Any], context: grpc.ServicerContext) -> Any:
        in_time = _limit(context)
        try:
            return _one(asked)
        finally:
            in_time()


def _one(asked: Iterator[Any]) -> Any:
    """The question of a method that is asked one."""
    question = next(asked, None)
    if question is None:
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "nothing was asked")
    return question


def _reason(error: HansaError) -> str:
    """An error in one line, with all that is wrong."""
    problems = error.problems if isinstance(error, ProblemsError) else ()
    return " — ".join([error.cause, *map(str, problems)])


def _limit(context: grpc.ServicerContext) -> Callable[[], None]:
    """Cancel a call after `TALK_S`, unless what comes back is called before: who falls silent keeps nothing for long."""
    timer = threading.Timer(TALK_S, context.cancel)
    timer.daemon = True
    timer.start()
    return timer.cancel


@contextmanager
def _told(context: grpc.ServicerContext) -> Iterator[None]:
    """What goes wrong, as a status; gRPC itself would send the text of an exception."""
    try:
        yield
    except Refusal as refusal:
        status, words = refusal.status, refusal.words
    except ProofError:
        status, words = grpc.StatusCode.INVALID_ARGUMENT, "there is no such proof"
    except LogStoreError as error:
        _log.error("the log cannot be read: %(why)s", {"error": error, "why": f"{error.code}: {error.cause}"})
        status, words = grpc.StatusCode.UNAVAILABLE, "the log cannot be read now"
    except HansaError as error:
        _log.error(
            "a question cannot be answered: %(why)s", {"error": error, "why": f"{error.code}: {error.cause}"}
        )
        status, words = grpc.StatusCode.INTERNAL, "internal error"
    except Exception:
        if not context.is_active():  # whoever asked has left, or the service has aborted the call itself
            raise
        _log.exception("a question could not be answered")
        status, words = grpc.StatusCode.INTERNAL, "internal error"
    else:
        return
    context.abort(status, words)
