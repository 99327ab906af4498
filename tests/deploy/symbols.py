"""Checks that a program that runs a folded network holds no training code, and nothing that runs before main: a program for
several processors, such as strata-restore, looks for its own only then. symbols.py PROGRAM CONTROL NM

CONTROL is a program that does hold both, so that the check can fail.
"""
import re
import subprocess
import sys

program, control, nm = sys.argv[1:4]
TRAINING = re.compile(r"BatchNorm|batch_norm|Dropout|\bTape\b|[Bb]ackward|\bTrain\b|\bParameter\b|[Gg]radient|Optimizer|Adam")
STANDARD = "move_backward"  # of the standard library, in which a deque moves its elements


BEFORE_MAIN = re.compile(r"_GLOBAL__(sub_)?I_|__cxx_global_var_init|global constructors")


def training_symbols(path):
    names = subprocess.run([nm, "-C", path], capture_output=True, text=True, check=True).stdout.splitlines()
    return len(names), [name for name in names if TRAINING.search(name.replace(STANDARD, ""))], [name for name in names if BEFORE_MAIN.search(name)]


count, found, early = training_symbols(control)
if not found or not early:
    sys.exit(f"FAILED: {control} shows no training code, or none before main, among {count} symbols: the check sees nothing")
count, found, early = training_symbols(program)
if any("asan" in name or "tsan" in name for name in subprocess.run([nm, program], capture_output=True, text=True).stdout.split()):
    print("skipped: a sanitizer's build inlines too little to judge")
    sys.exit(77)
if count < 20:
    sys.exit(f"FAILED: {program} has only {count} symbols: stripped?")
if found:
    sys.exit("FAILED: training code in a deployed program:\n  " + "\n  ".join(found[:20]))
if early:
    sys.exit("FAILED: the headers make code that runs before main:\n  " + "\n  ".join(early))
print(f"{count} symbols, none of training, none before main")
