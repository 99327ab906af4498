"""Checks that a program that runs a folded network holds no training code: symbols.py PROGRAM CONTROL NM

CONTROL is a program that does hold it, so that the check can fail.
"""
import re
import subprocess
import sys

program, control, nm = sys.argv[1:4]
TRAINING = re.compile(r"BatchNorm|batch_norm|Dropout|\bTape\b|[Bb]ackward|\bTrain\b|\bParameter\b|[Gg]radient|Optimizer|Adam")


def training_symbols(path):
    names = subprocess.run([nm, "-C", path], capture_output=True, text=True, check=True).stdout.splitlines()
    return len(names), [name for name in names if TRAINING.search(name)]


count, found = training_symbols(control)
if not found:
    sys.exit(f"FAILED: {control} shows no training code among {count} symbols: the check sees nothing")
count, found = training_symbols(program)
if any("asan" in name or "tsan" in name for name in subprocess.run([nm, program], capture_output=True, text=True).stdout.split()):
    print("skipped: a sanitizer's build inlines too little to judge")
    sys.exit(77)
if count < 20:
    sys.exit(f"FAILED: {program} has only {count} symbols: stripped?")
if found:
    sys.exit("FAILED: training code in a deployed program:\n  " + "\n  ".join(found[:20]))
print(f"{count} symbols, none of training")
