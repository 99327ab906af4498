"""What the Python sides of the comparison share: the loop that answers requests, as network_server.cpp describes it."""
import sys
import time


def serve(make):
    """make(work, network, n, h, w, variant) returns a call to be timed. The latest one is kept."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what libraries print must not mix with the answers
    current = call = None
    for line in sys.stdin:
        work, network, n, h, w, repetitions, variant = line.split()
        asked = work, network, int(n), int(h), int(w), variant
        if asked != current:
            current = call = None
            call = make(*asked)
            current = asked
        times = []
        for _ in range(int(repetitions)):
            start = time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - start))
        print(*(f"{t:.4f}" for t in times), file=answers, flush=True)
