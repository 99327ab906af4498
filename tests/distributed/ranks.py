#!/usr/bin/env python3
"""Training by several processes, over each MPI that is installed.

    ranks.py TEST PROGRAM... [--alone PROGRAM] [--nm NM]

PROGRAM is name=path of ranks_program, linked to the MPI of that name (openmpi, mpich); mpirun.<name> starts it. More ranks run
than there are processors. Returns 77, which CTest shows as skipped, where what a test needs is missing.

same         1, 2, 4 and 8 ranks end in the same bytes, and so does a run that goes on with another number of them, whose gradients
             leave in small buckets while backward() runs
steps        the same over 50 steps, and the messages and bytes of a step are the least there can be
errors       an error, a rank that hangs, one that leaves: all end in time, with one sentence and no success
every_error  the same, on each MPI, and on rank 0
deaths       kill -9 of a rank at a random moment: the others end, nothing is damaged, and the run that goes on ends in the bytes
             of one that was not disturbed
every_death  the same, 50 times for each rank
machines     ranks in three network namespaces, a slow and lossy network between them, and a cable that is pulled
symbols      a program that was not linked to strata::mpi has no trace of it, and runs
training     PROGRAM is dncnn_train: the same weights alone and with ranks, also when it was interrupted; one sentence for an error
"""
import argparse
import hashlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ENVIRONMENT = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1"}
SKIPPED = 77


def check(condition, *words):
    if not condition:
        sys.exit("FAILED: " + " ".join(str(word) for word in words))


def command(mpi, ranks):
    if ranks == 0:
        return []                                                                   # by itself, without mpirun
    return [f"mpirun.{mpi}", *(["--oversubscribe"] if mpi == "openmpi" else []), "-n", str(ranks)]


def run(mpi, program, ranks, *words, seconds=120):
    start = time.monotonic()
    done = subprocess.run([*command(mpi, ranks), program, *map(str, words)], env=ENVIRONMENT, text=True, capture_output=True, timeout=seconds)
    done.seconds = time.monotonic() - start
    return done


def trained(mpi, program, ranks, *words):
    done = run(mpi, program, ranks, *words)
    check(done.returncode == 0 and done.stdout.count("done:") == 1, mpi, ranks, words, done.returncode, done.stdout, done.stderr)
    return done.stdout.strip()


def digest(folder):
    return hashlib.sha256((folder / "latest.safetensors").read_bytes()).hexdigest()


class Folders:
    def __init__(self, place):
        self.place, self.count = place, 0

    def new(self, like=None):
        self.count += 1
        folder = self.place / str(self.count)
        shutil.copytree(like, folder) if like else folder.mkdir()
        return folder


def same_bytes(programs, folders, steps, nets, rank_counts):
    for net in nets:
        half, wanted = None, None
        for mpi, program in programs:
            for ranks in rank_counts:
                if mpi != programs[0][0] and ranks in (0, 1):
                    continue                                                        # no MPI is started
                folder = folders.new()
                trained(mpi, program, ranks, net, steps // 2, 8, folder)
                half = half or folders.new(folder)
                check(digest(folder) == digest(half), net, mpi, ranks, "ranks: other bytes than alone after", steps // 2, "steps")
                shutil.copy(half / "latest.safetensors", folder)
                other = 8 // max(ranks, 1)                                          # goes on with another number of ranks
                said = trained(mpi, program, other, net, steps, 8, folder, "resume", "bucket", 600)
                wanted = wanted or digest(folder)
                check(digest(folder) == wanted, net, mpi, "gone on with", other, "ranks: other bytes")
                print(f"{net} {mpi} {ranks} then {other} ranks: {wanted[:12]}; {said}")
        folder = folders.new()
        trained(programs[0][0], programs[0][1], 0, net, steps // 2, 4, folder)
        check(digest(folder) != digest(half), net, "4 shards give the bytes of 8: the test sees nothing")


def test_same(programs, folders, _):
    same_bytes(programs, folders, 8, ["dropout", "sync"], [0, 2, 8])


def test_steps(programs, folders, _):
    same_bytes(programs, folders, 50, ["dncnn", "dropout", "sync"], [0, 1, 2, 4, 8])
    for mpi, program in programs:
        for ranks in (2, 4, 8):
            words = trained(mpi, program, ranks, "dncnn", 2, 8, folders.new()).split()
            numbers, messages, sent = int(words[5]), int(words[7]), int(words[9])
            least = 2 * (1 - 1 / ranks) * 4 * numbers                               # of an allreduce of float32
            print(f"{mpi} {ranks} ranks: {messages} messages, {sent} bytes a step, {sent / least:.3f} of the least")
            check(sent < 1.05 * least, "more bytes than an allreduce needs")
            early = float(trained(mpi, program, ranks, "dncnn", 2, 8, folders.new(), "bucket", 4096).split()[13])
            print(f"in buckets of 4 KiB: {early:.3f} of the bytes are on their way before backward() ends")
            check(early > 0.25, "gradients leave late")                               # their first messages alone are 0.3 of all


HANG = (("hang", 1, 3, "timeout", 2), "has not answered for 2 s", 20)
ERRORS = [(("fail", 2, 3), "ranks_program: rank 2 of 4 on ", 15), (("leave", 3, 3, "timeout", 5), "at different places of the program", 25)]
MORE_ERRORS = [(("fail", 0, 3), "ranks_program: rank 0 of 4 on ", 15), HANG]


def test_errors(programs, folders, _):
    errors(programs[:1], folders, [*ERRORS, HANG])
    errors(programs[1:], folders, ERRORS)
    for words, sentence in ((("leave", 3, 3, "timeout", 5), "at different places of the program"), HANG[:2]):  # while gradients leave early
        done = run(programs[-1][0], programs[-1][1], 4, "dropout", 10, 8, folders.new(), *words, "bucket", 400)
        check(done.returncode != 0 and sentence in done.stderr, words, "in buckets, wanted:", sentence, "got:", done.stderr)
    if len(programs) == 2:
        done = run("mpich", dict(programs)["openmpi"], 2, "dropout", 2, 8, folders.new())
        check(done.returncode != 0 and "start it with the mpirun of that MPI" in done.stderr, done.stderr)


def test_every_error(programs, folders, _):
    errors(programs, folders, ERRORS + MORE_ERRORS)


def errors(programs, folders, cases):
    for mpi, program in programs:
        for words, sentence, limit in cases:
            folder = folders.new()
            done = run(mpi, program, 4, "dropout", 10, 8, folder, *words)
            said = [line for line in done.stderr.splitlines() if "ranks_program: " in line]
            print(mpi, words, f"{done.seconds:.1f} s, status {done.returncode}: {said}")
            check(done.returncode != 0, mpi, words, "ended as if all were well")
            check(said and sentence in said[0], mpi, words, "wanted:", sentence, "got:", done.stderr)
            check(words[0] == "hang" or len(said) <= 2, mpi, words, "said more than once:", said)
            check(done.seconds < limit, mpi, words, "took", done.seconds, "s")
            trained(mpi, program, 2, "dropout", 10, 8, folder, "resume")
        for late in ([], ["late", 0, 1500], ["late", 1, 1500], ["late", 2, 1500]):      # that rank starts its program so many ms after the others
            done = run(mpi, program, 3, "dropout", 2, 8, folders.new(), *late)
            check(done.returncode != 0 and "3 ranks cannot share 8 shards" in done.stderr, mpi, done.stderr)
            said = [line for line in done.stderr.splitlines() if "ranks_program: " in line]
            check(len(said) == 1, mpi, late, "an error of all ranks is to be said once:", said)
            print(mpi, late, f"{done.seconds:.1f} s: {said}")


def children(program):
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "exe") == str(program):
                words = (entry / "environ").read_bytes().split(b"\0")
                rank = [w.split(b"=")[1] for w in words if w.startswith((b"OMPI_COMM_WORLD_RANK=", b"PMI_RANK="))]
                if rank:
                    found.append((int(rank[0]), int(entry.name)))
        except OSError:
            pass
    return dict(found)


def deaths(programs, folders, times, ranks_killed):
    wanted = folders.new()
    trained(*programs[0], 0, "dropout", 30, 8, wanted)
    for mpi, program in programs:
        for rank in ranks_killed:
            killed = tries = 0
            while killed < times and tries < 3 * times + 3:  # a run may end before its moment comes
                tries += 1
                folder = folders.new()
                process = subprocess.Popen([*command(mpi, 4), program, "dropout", "30", "8", str(folder), "pause", "20"], env=ENVIRONMENT,
                                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                while rank not in children(program) and process.poll() is None:
                    time.sleep(0.02)
                moment = random.uniform(0, 1.5)
                time.sleep(moment)
                victim = children(program).get(rank)
                if victim:
                    os.kill(victim, signal.SIGKILL)
                start = time.monotonic()
                said, _ = process.communicate(timeout=60)
                seconds = time.monotonic() - start
                if victim is None:
                    check(process.returncode == 0, mpi, "ended by itself, and not well:", said)
                    continue
                killed += 1
                check(process.returncode != 0 or "done:" in said, mpi, rank, "was killed, and the run says it is well:", said)
                check(seconds < 30, mpi, "the others took", seconds, "s to end")
                left = children(program)
                check(not left, mpi, "still running:", left)
                goes_on = ["resume"] if (folder / "latest.safetensors").exists() else []
                trained(mpi, program, random.choice([1, 2, 4]), "dropout", 30, 8, folder, *goes_on)
                check(digest(folder) == digest(wanted), mpi, "rank", rank, "killed after", moment, "s: other bytes in the end")
                print(f"{mpi} rank {rank} killed after {moment:.2f} s: ended in {seconds:.1f} s, status {process.returncode}")
                shutil.rmtree(folder)
            check(killed == times, mpi, "rank", rank, "was killed", killed, "times in", tries, "runs, wanted", times)


def test_deaths(programs, folders, _):
    deaths(programs, folders, 1, [2])


def test_every_death(programs, folders, _):
    deaths(programs, folders, 50, [0, 1, 2, 3])


def test_machines(programs, folders, _):
    """Three network namespaces on a bridge, as machines; Open MPI starts its ranks through a script in place of ssh."""
    if not shutil.which("ip") or os.geteuid() != 0 or "openmpi" not in dict(programs):
        print("skipped: wants root, ip and Open MPI")
        sys.exit(SKIPPED)
    program, names = dict(programs)["openmpi"], ["stratar0", "stratar1", "stratar2"]

    def ip(*words, may_fail=False):
        done = subprocess.run(["ip", *words], capture_output=True, text=True)
        if done.returncode != 0 and not may_fail:
            print("skipped: no network namespaces here: ip", *words, done.stderr.strip())
            sys.exit(SKIPPED)

    def remove():
        for name in names:
            ip("netns", "del", name, may_fail=True)
        ip("link", "del", "stratabr", may_fail=True)

    remove()
    try:
        ip("link", "add", "stratabr", "type", "bridge")
        ip("link", "set", "stratabr", "up")
        ip("addr", "add", "10.77.0.254/24", "dev", "stratabr")
        for i, name in enumerate(names):
            ip("netns", "add", name)
            ip("link", "add", f"{name}h", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"{name}h", "master", "stratabr", "up")
            ip("-n", name, "addr", "add", f"10.77.0.{i + 1}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
            slow = subprocess.run(["ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", "eth0", "root", "netem", "delay", "2ms", "1ms", "loss", "1%"],
                                  capture_output=True, text=True)
            print(f"{name}: tc netem:", slow.stderr.strip() or "2 ms, 1 % loss")
        folder = folders.new()
        shell = folders.place / "shell"
        shell.write_text("#!/bin/sh\nwhile [ \"${1#-}\" != \"$1\" ]; do shift; done\nhost=$1; shift\n"
                         "case $host in 10.77.0.1) n=stratar0;; 10.77.0.2) n=stratar1;; *) n=stratar2;; esac\n"
                         "exec ip netns exec $n unshare -u sh -c \"hostname $n; $*\"\n")
        shell.chmod(0o755)
        hosts = folders.place / "hosts"
        hosts.write_text("".join(f"10.77.0.{i + 1} slots=2\n" for i in range(3)))
        start = [f"mpirun.openmpi", "--mca", "plm_rsh_agent", str(shell), "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "10.77.0.0/24",
                 "--mca", "oob_tcp_if_include", "10.77.0.0/24", "--mca", "oob_tcp_keepalive_time", "3",
                 "--mca", "oob_tcp_keepalive_intvl", "1", "--mca", "oob_tcp_keepalive_probes", "3", "--hostfile", str(hosts), "--map-by", "node", "-n", "4", program]
        wanted = folders.new()
        trained("openmpi", program, 0, "dropout", 20, 8, wanted)
        done = subprocess.run([*start, "dropout", "20", "8", str(folder)], env=ENVIRONMENT, text=True, capture_output=True, timeout=120)
        check(done.returncode == 0 and digest(folder) == digest(wanted), "over the network:", done.returncode, done.stdout, done.stderr)
        print("ranks on three machines: the bytes of one rank;", done.stdout.strip())
        folder = folders.new()
        said_file = folders.place / "said"
        process = subprocess.Popen([*start, "dropout", "1000", "8", str(folder), "timeout", "5", "pause", "20"], env=ENVIRONMENT,
                                   stdout=said_file.open("w"), stderr=subprocess.STDOUT)
        time.sleep(4)
        ip("link", "set", "stratar1h", "down")
        pulled = time.monotonic()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            check(False, "a cable was pulled, and the run goes on for a minute", said_file.read_text())
        said = said_file.read_text()
        print(f"cable pulled: ended after {time.monotonic() - pulled:.1f} s, status {process.returncode}:\n{said}")
        check(process.returncode != 0 and "has not answered for 5 s" in said, said)
        trained("openmpi", program, 2, "dropout", 20, 8, folder, "resume") if digest(folder) else None
    finally:
        remove()


def test_symbols(programs, folders, options):
    names = subprocess.run([options.nm, "-C", options.alone], capture_output=True, text=True, check=True).stdout
    libraries = subprocess.run(["ldd", options.alone], capture_output=True, text=True).stdout
    for text in (names, libraries):
        found = [line for line in text.splitlines() if "MPI_" in line or "MpiCommunicator" in line or "libmpi" in line]
        check(not found, "MPI in a program that is not linked to it:", found[:5])
    for mpi, program in programs:
        names = subprocess.run([options.nm, "-C", program], capture_output=True, text=True, check=True).stdout
        check("MPI_Isend" in names, "the check sees nothing")
        done = run(mpi, options.alone, 2, "dropout", 2, 8, folders.new())
        check(done.returncode != 0 and "this program was built without MPI: link strata::mpi" in done.stderr, mpi, done.stderr)
    both = [folders.new(), folders.new()]
    trained("", options.alone, 0, "dropout", 4, 8, both[0])
    trained("", programs[0][1], 0, "dropout", 4, 8, both[1])                        # and where no mpirun started it
    check(digest(both[0]) == digest(both[1]), "the program with MPI computes something else")
    environment = ENVIRONMENT | {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    done = subprocess.run([programs[0][1], "dropout", "2", "8", str(folders.new())], env=environment, capture_output=True, text=True)
    check(done.returncode != 0 and "torchrun started 2 processes" in done.stderr, done.stderr)


def tensors(file):
    """The bytes of a safetensors file's tensors, without its header, in which a checkpoint keeps the seconds."""
    content = file.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little"):]


def test_training(programs, folders, options):
    """dncnn_train, in its own folder for each way of running it."""
    flags = ["--depth", "8", "--width", "32", "--epochs", "3", "--steps-per-epoch", "6", "--batch-size", "8", "--patch-size", "16",
             "--shards", "4", "--save-interval", "3", "--check-ranks", "2", "--checkpoint-dir"]
    alone = folders.new()
    done = run("", options.alone, 0, *flags, alone)
    check(done.returncode == 0, done.stdout, done.stderr)
    log = [line.rsplit(",", 1)[0] for line in (alone / "log.csv").read_text().splitlines()]
    for mpi, program in programs[:1] if options.quick else programs:
        folder = folders.new()
        done = run(mpi, program, 4, *flags, folder)
        check(done.returncode == 0 and done.stdout.count("epoch   3 ") == 1, mpi, done.stdout, done.stderr)
        for name in ("latest.safetensors", "best.safetensors"):
            check(tensors(folder / name) == tensors(alone / name), mpi, name, "is another than that of one process")
        check([line.rsplit(",", 1)[0] for line in (folder / "log.csv").read_text().splitlines()] == log, mpi, "the log differs")
        done = run(mpi, program, 2, *flags, folder)                                 # there is a run already: refused, once
        check(done.returncode != 0 and done.stderr.count("is there already") == 1, mpi, done.stderr)

        folder = folders.new()                                                      # interrupted, then on with other ranks
        process = subprocess.Popen([*command(mpi, 2), program, *flags, str(folder)], env=ENVIRONMENT, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True)
        start = time.monotonic()
        while not (folder / "latest.safetensors").exists() and process.poll() is None and time.monotonic() - start < 60:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
        check("stopped after epoch" in said or "best PSNR" in said, mpi, "Ctrl-C on mpirun, and nothing says that it stopped:", said)
        done = run(mpi, program, 1, "--checkpoint-dir", folder, "--resume")
        check(done.returncode == 0, mpi, done.stdout, done.stderr)
        check(tensors(folder / "latest.safetensors") == tensors(alone / "latest.safetensors"), mpi, "interrupted and gone on with: other weights")
        print(mpi, "4 ranks, and 2 interrupted then 1:", done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("test")
    parser.add_argument("programs", nargs="*")
    parser.add_argument("--alone")
    parser.add_argument("--nm", default="nm")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="training: with the first MPI alone")
    options = parser.parse_args()
    random.seed(options.seed)
    programs = [(p.split("=")[0], os.path.realpath(p.split("=")[1])) for p in options.programs]
    programs = [(mpi, program) for mpi, program in programs if shutil.which(f"mpirun.{mpi}")]
    if not programs:
        print("skipped: there is no MPI (Debian: apt install libopenmpi-dev openmpi-bin libmpich-dev mpich)")
        sys.exit(SKIPPED)
    with tempfile.TemporaryDirectory() as place:
        globals()["test_" + options.test](programs, Folders(pathlib.Path(place)), options)


if __name__ == "__main__":
    main()
