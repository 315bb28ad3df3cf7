# Shared by quickstart and test: one virtual environment in .venv, built once per pyproject.toml and set of
# extras. Sourced with the repository's root as working directory.

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.14 python3.13 python3.12 python3.11 python3; do
        [ -n "$candidate" ] || continue
        command -v "$candidate" >/dev/null 2>&1 || continue
        if "$candidate" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "no Python 3.11 to 3.14 found; install one, or name it: PYTHON=/path/to/python $0" >&2
    return 5
}

# compile_sources PROCESSES: what imports would otherwise do one by one; 0: one process a core.
compile_sources() {
    nice .venv/bin/python -W ignore -m compileall -q -j "$1" .venv/lib >/dev/null 2>&1 || true
}

# pip_install PIP_OPTION... REQUIREMENT...: by the pip of $pip. It would compile sources on one core; warnings and
# old files of other people's packages are not ours to show.
pip_install() {
    "${pip[@]}" install --quiet --disable-pip-version-check --no-compile "$@"
}

# kernel_requirements: those of the project's requirements that its kernels are compiled with, one a line.
kernel_requirements() {
    .venv/bin/python - <<'END'
import re
import tomllib

with open("pyproject.toml", "rb") as file:
    every = tomllib.load(file)["project"]["dependencies"]
names = {"numba", "llvmlite", "numpy", "pydantic", "pydantic-core", "ruamel.yaml"}
print("\n".join(one for one in every if re.match(r"[\w.-]+", one)[0] in names))
END
}

# begin_kernels PYTHON: install what kernels need, by that Python's pip if .venv has none yet, and compile them from
# here on; $kernels is the process. What fails here fails again, and says why, when the caller needs it.
begin_kernels() {
    local requirements pip=(.venv/bin/python -m pip)
    [ -e .venv/bin/pip ] || pip=("$1" -m pip --python .venv/bin/python)
    mapfile -t requirements < <(kernel_requirements)
    pip_install "${requirements[@]}" 2>/dev/null || return 0
    .venv/bin/python -c 'from spbfast.model.engine import warmup; warmup()' >/dev/null 2>&1 &
    kernels=$!
}

# make_venv [--beside] REQUIREMENT...: .venv with these requirements, such as '.[plot]'. Kept if nothing changed.
# With --beside kernels are compiled while pip and packages are installed, and sources meanwhile: each takes a core.
make_venv() {
    local python stamp wanted beside=0 kernels= pip=(.venv/bin/python -m pip)
    if [ "$1" = --beside ]; then
        beside=1
        shift
    fi
    stamp=.venv/.requirements
    wanted="$* $(cksum <pyproject.toml)"
    if [ -x .venv/bin/python ] && [ -f "$stamp" ] && grep -qxF -- "$wanted" "$stamp"; then
        return
    fi
    python=$(find_python)
    if ! .venv/bin/python -c 'import pip' 2>/dev/null; then
        echo "making .venv with $("$python" --version)" >&2
        "$python" -m venv --clear --without-pip .venv
    fi
    echo "installing $* (about a minute)" >&2
    local arg args=()
    for arg in "$@"; do
        case "$arg" in .*) args+=(-e "$arg") ;; *) args+=("$arg") ;; esac
    done
    if [ "$beside" = 1 ]; then
        begin_kernels "$python"
    fi
    [ -e .venv/bin/pip ] || .venv/bin/python -m ensurepip --default-pip >/dev/null
    if ! pip_install "${args[@]}"; then
        [ -z "$kernels" ] || kill "$kernels" 2>/dev/null || true
        return 1
    fi
    if [ "$beside" = 1 ]; then
        compile_sources 1 &
        [ -z "$kernels" ] || echo "compiling the kernels (about a minute, once a version)" >&2
        [ -z "$kernels" ] || wait "$kernels" || true
    else
        compile_sources 0
    fi
    [ -f "$stamp" ] && ! grep -qF -- "$(cksum <pyproject.toml)" "$stamp" && rm -f "$stamp"
    echo "$wanted" >>"$stamp"
}
