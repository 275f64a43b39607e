#!/bin/sh
# Configures unpacked packages: carries out the plan beside it, a line at a time (see ../configure.rs).
# Everything it needs is in an essential package.
set -u
exec 2>&1 </dev/null
umask 022
cd /

# Some thousand programs are started, each of which would look at two directories that no package fills, and read twelve files of
# a locale that differs from C in nothing but the encoding.
export PATH=/usr/sbin:/usr/bin LC_CTYPE=C.UTF-8
unset LANG LC_ALL

room=/var/lib/dpkg/forge
export DEBIAN_FRONTEND=noninteractive DEBIAN_PRIORITY=critical DEBCONF_NONINTERACTIVE_SEEN=true
# What hashes in an order of their own would write in that order.
export PYTHONHASHSEED=0 PERL_HASH_SEED=0 PERL_PERTURB_KEYS=0
# TeX puts the day into its formats, unless it is told that SOURCE_DATE_EPOCH is meant for it too.
export FORCE_SOURCE_DATE=1
# Bytecode is what packages compile, with the digest of its source in it; what an import would leave has its time.
export PYTHONDONTWRITEBYTECODE=1

fail() {
    echo "forge: $*"
    exit 1
}

# Nothing is asked: where a script made a configuration file before its package brings it, what is there stays. The first error is
# the last word.
configure() {
    dpkg --force-confdef --force-confold --force-unsafe-io --abort-after=1 --log=/dev/null "$@" 3<&-
}

# As dpkg runs it, with its variables (dpkg(1), "INTERNAL ENVIRONMENT"). debconf would look beside it for whose script it is.
preinst() {
    DEBCONF_PACKAGE=$1 \
        DPKG_MAINTSCRIPT_PACKAGE=$1 DPKG_MAINTSCRIPT_ARCH=$2 DPKG_MAINTSCRIPT_NAME=preinst DPKG_MAINTSCRIPT_DEBUG=0 \
        DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1 DPKG_RUNNING_VERSION=$4 DPKG_ADMINDIR=/var/lib/dpkg DPKG_ROOT='' \
        "$3" install 3<&-
}

while read -r action rest <&3; do
    # shellcheck disable=SC2086 # Every argument in a plan is one word.
    set -- $rest
    case $action in
        preinst)
            # dpkg-divert moves nothing that the diverting package has itself; it has nothing yet.
            list=${3%.preinst}.list
            [ ! -d "$room/late/$1" ] || mv "$list" "$room/list" || fail "package \`$1\`: its list of files cannot be put aside"
            preinst "$@" || fail "package \`$1\`: preinst ended with status $?"
            [ ! -d "$room/late/$1" ] || mv "$room/list" "$list" || fail "package \`$1\`: its list of files is gone"
            ;;
        late)
            # What the package has, now that its preinst has made room for it.
            tar -C "$room/late/$1" --numeric-owner -cf "$room/late.tar" . &&
                tar -C / --numeric-owner --no-overwrite-dir --keep-directory-symlink -xpf "$room/late.tar" ||
                fail "package \`$1\`: its files cannot be put in place"
            ;;
        answer)
            # Package, question, type, value.
            echo "$1 $2 $3 $4" | debconf-set-selections || fail "package \`$1\`: \`$2\` cannot be answered"
            ;;
        configure)
            configure --configure "$@" || fail "dpkg ended with status $?"
            ;;
        finish)
            configure --configure --pending || fail "dpkg ended with status $?"
            ;;
        trigger)
            dpkg-trigger --no-await --by-package=dpkg "$1" || fail "trigger \`$1\` cannot be activated"
            ;;
        *)
            fail "the plan says \`$action\`"
            ;;
    esac
done 3<"$room/plan"

# shellcheck disable=SC2016 # dpkg-query's own fields.
unfinished=$(dpkg-query --show --showformat='${db:Status-Status} ${binary:Package}\n' | sed -n '/^installed /!p')
[ -z "$unfinished" ] || fail "packages left unconfigured:" $unfinished
