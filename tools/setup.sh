# What check, demo and bench share. They read it with `.`, in bash, from the project's root.
#
#   need_packages PACKAGE...            installs those Debian packages that are missing
#   configure DIRECTORY MESON-OPTION... sets a build directory up, unless it stands there with just these options
#   build_program NAME...               makes build/release/NAME, optimised, with all set-up

# An empty environment has neither; the compiler cache needs the second.
export PATH="${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"
export HOME="${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}"
[ -w "$HOME" ] || export CCACHE_DIR="${CCACHE_DIR:-$PWD/build/ccache}"

build_packages=(g++ meson pkg-config ccache libsqlite3-dev libsqlitecpp-dev libcereal-dev rapidjson-dev liblzma-dev
    libcli11-dev)
ccache=ccache

need_packages() {
    if ! command -v dpkg-query >/dev/null; then # not a Debian: meson says what it misses
        command -v ccache >/dev/null || ccache=
        return 0
    fi
    local installed missing=() package apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300) log
    installed=" $(dpkg-query -W -f '${db:Status-Status}:${Package} ' "$@" 2>/dev/null) "
    for package; do
        [[ $installed == *" installed:$package "* ]] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "packages are missing, and there is no sudo to install them; as root: apt-get install ${missing[*]}" >&2
            return 1
        fi
        apt=(sudo "${apt[@]}")
    fi
    echo "== installing ${missing[*]}"
    log=$(mktemp)
    if { "${apt[@]}" update && "${apt[@]}" install --yes --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        rm "$log"
    else
        tail -n 40 "$log" >&2
        rm "$log"
        echo "could not install ${missing[*]}" >&2
        return 1
    fi
}

configure() {
    local directory=$1 wanted
    shift
    # In a clone that was moved, or with other options, it has to begin anew; all else ninja sees by itself.
    wanted="$PWD $CXX $*"
    [ "$(cat "$directory/configured" 2>/dev/null)" != "$wanted" ] || return 0
    rm -rf "$directory"
    meson setup "$@" "$directory" && echo "$wanted" >"$directory/configured"
}

build_program() {
    need_packages "${build_packages[@]}" || return
    local log=build/release.log
    mkdir -p build
    ninja -C build/release -n "$@" 2>/dev/null | grep -q 'no work to do' || echo "== building $*"
    if ! { CXX="$ccache g++" configure build/release --buildtype=release -Ddefault_library=both -Dtests=disabled &&
        ninja -C build/release "$@"; } >"$log" 2>&1; then
        cat "$log" >&2
        return 1
    fi
}
