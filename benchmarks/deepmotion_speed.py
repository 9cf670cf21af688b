"""DeepMotion's times: a motion recognised, an event in a stream, a gesture taught, many streams at once.

All on simulated accelerometer gestures, so it needs no data. Latencies are of one thread. They run by the clock of a
shared machine; the quantiles tell how much that matters.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import sys
import time
from typing import Any

import common  # first: frees OpenBLAS before NumPy loads
import numpy as np

BENCHMARK = "deepmotion_speed"
RATE = 100.0


def quantiles(seconds: list[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum, in milliseconds."""
    return {
        "median_ms": 1e3 * common.quantile(seconds, 0.5),
        "p99_ms": 1e3 * common.quantile(seconds, 0.99),
        "max_ms": 1e3 * max(seconds),
        "count": len(seconds),
    }


def recognition(model: Any, test: Any, count: int) -> dict[str, float]:
    """One motion at a time."""
    seconds = []
    for i in range(count):
        sequence = test.sequences[i % len(test)]
        begin = time.perf_counter()
        model.recognize(sequence)
        seconds.append(time.perf_counter() - begin)
    return quantiles(seconds[count // 20 :])


def stream_latency(model: Any, count: int, seed: int) -> dict[str, float]:
    """The pushes, of one sample each, that answer with an event: from the last sample to the event."""
    from gesda.deepmotion import GestureStream, make_gesture_stream

    samples, truth = make_gesture_stream(count, gestures=8, n_users=4, rate=RATE, random_state=seed)
    stream = GestureStream(model, rate=RATE)
    pushes, answers = [], []
    found = 0
    for sample in samples:
        begin = time.perf_counter()
        events = stream.push(sample)
        seconds = time.perf_counter() - begin
        pushes.append(seconds)
        if events:
            answers.append(seconds)
            found += len(events)
    return {
        "gestures": len(truth),
        "events": found,
        **{f"event_{name}": value for name, value in quantiles(answers or [0.0]).items()},
        **{f"push_{name}": value for name, value in quantiles(pushes).items()},
        "push_p9999_ms": 1e3 * common.quantile(pushes, 0.9999),
    }


def many_streams(model_path: str, n_streams: int, seconds: float, processes: int, seed: int) -> dict[str, float]:
    """So many streams, each of its own gestures, shared out to processes that push samples as fast as they can."""
    shares = [len(range(k, n_streams, processes)) for k in range(processes)]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
        jobs = [pool.submit(_run_streams, model_path, share, seconds, seed + k) for k, share in enumerate(shares)]
        results = [job.result() for job in jobs]
    took = max(result["seconds"] for result in results)
    return {
        "streams": n_streams,
        "processes": processes,
        "stream_seconds": n_streams * seconds,
        "seconds": took,
        "times_real_time": seconds / took,
        "events": sum(result["events"] for result in results),
    }


def _run_streams(model_path: str, n_streams: int, seconds: float, seed: int) -> dict[str, float]:
    """Push the samples of all streams in turn, ten at a time, as a server does that hears from each every 0.1 s."""
    from gesda.deepmotion import GestureRecognizer, GestureStream, make_gesture_stream

    model = GestureRecognizer.load(model_path)
    sources = [make_gesture_stream(30, gestures=8, n_users=1, rate=RATE, random_state=seed + i)[0] for i in range(16)]
    length = int(seconds * RATE)
    streams = [GestureStream(model, rate=RATE) for _ in range(n_streams)]
    rng = np.random.default_rng(seed)
    starts = [int(rng.integers(max(1, len(sources[i % 16]) - length))) for i in range(n_streams)]
    begin = time.perf_counter()
    for first in range(0, length, 10):
        for i, stream in enumerate(streams):
            at = starts[i] + first
            stream.push(sources[i % 16][at : at + 10])
    return {"seconds": time.perf_counter() - begin, "events": sum(stream.report.events for stream in streams)}


def teaching(model_path: str, seed: int, count: int) -> dict[str, float]:
    """A gesture more from five examples, on all cores; what it costs the others."""
    from gesda.deepmotion import GestureRecognizer, make_gestures

    new = make_gestures(12, gestures=("letter_S",), n_users=2, rate=RATE, random_state=seed + 1)
    old = make_gestures(12, gestures=8, n_users=4, rate=RATE, random_state=seed)
    seconds, kept, learnt, before = [], [], [], []
    for trial in range(count):
        model = GestureRecognizer.load(model_path)
        before.append(model.score(old, old.labels))
        chosen = np.random.default_rng([seed, trial]).permutation(len(new))
        begin = time.perf_counter()
        model.add_gesture("letter_S", new[chosen[:5]])
        seconds.append(time.perf_counter() - begin)
        kept.append(model.score(old, old.labels))
        learnt.append(model.score(new[chosen[5:]], new.labels[chosen[5:]]))
    means = {"others_before": before, "others_after": kept, "new": learnt}
    return quantiles(seconds) | {name: common.mean_and_spread(values)[0] for name, values in means.items()}


def table(results: dict[str, Any]) -> str:
    """What was asked for, in one row each."""
    single, stream = results["recognize"], results["stream"]
    crowd, lesson = results["many_streams"], results["add_gesture"]
    rows = [
        [
            "recognize, one thread",
            f"{single['median_ms']:.2f}",
            f"{single['p99_ms']:.2f}",
            f"{single['count']} motions",
        ],
        [
            "last sample to event, one thread",
            f"{stream['event_median_ms']:.2f}",
            f"{stream['event_p99_ms']:.2f}",
            f"{stream['events']} events of {stream['gestures']} gestures",
        ],
        [
            "any push of a sample",
            f"{stream['push_median_ms']:.3f}",
            f"{stream['push_p99_ms']:.3f}",
            f"{stream['push_count']} samples, one in 10,000 takes {stream['push_p9999_ms']:.1f} ms or more",
        ],
        [
            "add_gesture, 5 examples, all cores",
            f"{lesson['median_ms']:.0f}",
            f"{lesson['max_ms']:.0f} (max)",
            f"others {lesson['others_before']:.3f} -> {lesson['others_after']:.3f}, new {lesson['new']:.3f}",
        ],
        [
            f"{crowd['streams']} streams of {RATE:.0f} Hz, {crowd['processes']} processes",
            "-",
            "-",
            f"{crowd['times_real_time']:.2f} times real time, {crowd['events']} events",
        ],
    ]
    return common.markdown_table(["what", "median ms", "99th percentile ms", "notes"], rows)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    import tempfile

    parser = common.argument_parser(BENCHMARK, __doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    from gesda.deepmotion import GestureRecognizer, make_gestures

    quick = {"pretrain_epochs": 1, "max_iter": 1, "n_members": 2} if arguments.quick else {}
    if arguments.quick:
        arguments.streams = min(arguments.streams, 20)
    data = make_gestures(20, gestures=8, n_users=4, rate=RATE, n_unlabeled=100, random_state=arguments.seed)
    model = GestureRecognizer(random_state=0, n_jobs=arguments.threads, **quick).fit(data)
    test = make_gestures(20, gestures=8, n_users=4, rate=RATE, random_state=arguments.seed + 1)
    model.recognize(test.sequences[0])  # compiles, once
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.gesda"
        model.save(path)
        results = {
            "recognize": recognition(model, test, 100 if arguments.quick else 2000),
            "stream": stream_latency(model, 20 if arguments.quick else 300, arguments.seed),
            "add_gesture": teaching(path, arguments.seed, 2 if arguments.quick else 10),
            "many_streams": many_streams(
                path, arguments.streams, 2.0 if arguments.quick else 10.0, arguments.threads, arguments.seed
            ),
        }
    document = common.new_document(BENCHMARK, arguments)
    document["results"] = [results]
    output = common.output_path(BENCHMARK, arguments)
    if output is not None:
        common.write_json(output, document)
    print("\n".join(common.environment_report()))
    print(table(results))


if __name__ == "__main__":
    sys.exit(main())
