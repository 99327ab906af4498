"""What the Python sides of the comparison share: the loop that answers requests, as network_server.cpp describes it."""
import sys
import time


def serve(make):
    """make(work, network, n, h, w, variant) returns a call to be timed. Calls are kept until another work is asked for."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what libraries print must not mix with the answers
    current, calls = None, {}
    for line in sys.stdin:
        work, network, n, h, w, repetitions, variant = line.split()
        asked = work, network, int(n), int(h), int(w)
        if asked != current:
            current, calls = asked, {}
        if variant not in calls:
            calls[variant] = make(*asked, variant)
        times = []
        for _ in range(int(repetitions)):
            start = time.perf_counter()
            calls[variant]()
            times.append(1e3 * (time.perf_counter() - start))
        print(*(f"{t:.4f}" for t in times), file=answers, flush=True)
