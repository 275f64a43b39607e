#!/bin/sh
# The stages of a CI run, in their order; the first that fails ends it. On stdout is the id, for whoever deploys.
#
#   pipeline.sh EXPRESSION PEER      PEER: a remote's name, file:///srv/forge, https://HOST or oci://REGISTRY/REPOSITORY
set -eu
expression=$1 peer=$2 forge=${FORGE:-forge}

"$forge" check --strict "$expression" >&2                       # mistakes, and files that look like keys
id=$("$forge" build --locked --strict "$expression")            # the lock as it was committed
"$forge" test "$id" >&2                                         # the formation's own test
"$forge" build --locked --check "$expression" >/dev/null        # every step once more elsewhere: nothing differs
"$forge" sbom "$id" -o sbom.spdx.json                           # what is in it, and how it was made
"$forge" provenance "$id" -o provenance.json
"$forge" push "$id" "$peer" >&2                                 # what the peer has not got
echo "$id"
