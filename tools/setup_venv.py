"""Create the virtual environment named by the first argument and install into it, unless that is already
done.

`make` runs this with whatever Python there is, so it keeps to a syntax that old ones understand and tells
them what is wrong in one line.
"""

import hashlib
import os
import shutil
import subprocess
import sys

OLDEST = (3, 11)
DISK = 6  # GB as `df -h` counts them: torch with its CUDA libraries, JupyterLab and the rest


def check_python():
    if sys.version_info < OLDEST:
        found = "%d.%d" % tuple(sys.version_info[:2])
        sys.exit(
            "Python 3.11 or newer is needed, %s is %s. Name another one: make PYTHON=python3.12 figures"
            % (sys.executable, found)
        )
    try:
        import ensurepip  # noqa: F401  Debian leaves out this half of venv
        import venv  # noqa: F401
    except ImportError:
        sys.exit("%s has no venv module. On Debian and Ubuntu: apt install python3-venv" % sys.executable)


def check_disk():
    free = shutil.disk_usage(".").free / 2**30
    if free < DISK:
        sys.exit("%d GB of free disk space are needed in %s, there are %.1f GB" % (DISK, os.getcwd(), free))


def read(path):
    return open(path).read() if os.path.isfile(path) else ""


def main(folder):
    if os.path.relpath(folder).startswith(os.pardir):
        sys.exit("VENV=%s: an environment belongs to one clone and lies inside it" % folder)
    stamp, begun, python = (
        os.path.join(folder, "complete"),
        folder + ".installing",
        os.path.join(folder, "bin", "python"),
    )
    # Scripts in an environment hold its path, so it is good for this folder only; versions are compared by
    # content, as git changes times.
    place = os.getcwd() + "\n"
    want = place + hashlib.sha256((read("pyproject.toml") + read("constraints.txt")).encode()).hexdigest()
    have, broken_off = read(stamp), os.path.exists(begun)
    usable = have.startswith(place) and os.access(python, os.X_OK) and not broken_off
    if usable and have == want:
        return
    if not usable:
        if os.path.exists(folder) and not have and not broken_off:
            sys.exit(
                "%s was not made by make: remove it, or name another place: make VENV=.venv-make figures"
                % folder
            )
        check_python()
        shutil.rmtree(folder, ignore_errors=True)
        check_disk()
    print("Installing into %s: some minutes the first time" % folder)
    sys.stdout.flush()
    open(begun, "w").close()
    if not usable and subprocess.call([sys.executable, "-m", "venv", folder]):
        sys.exit("The virtual environment could not be made, venv says why above.")
    # one call, so that pip chooses torch and torchvision together
    if subprocess.call(
        [
            python,
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "-c",
            "constraints.txt",
            "-e",
            ".[dev]",
        ]
    ):
        sys.exit("The installation failed, pip says why above. The same command tries again.")
    with open(stamp, "w") as f:
        f.write(want)
    os.remove(begun)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command starts again.")
