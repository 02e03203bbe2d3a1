#!/bin/sh
# Starts PostgreSQL as an ordinary user on a read-only root file system; makes the cluster of databases when there is
# none. User, database and password come from POSTGRES_USER, POSTGRES_DB and POSTGRES_PASSWORD_FILE, else from the
# files username, database and password of a Service Binding in /bindings/<any>.
set -eu
umask 077

fail() {
    echo "postgres-entrypoint: $1" >&2
    exit 1
}

# Prints the first line of the binding's entry $1, nothing where there is none.
binding() {
    for file in /bindings/*/"$1" /bindings/"$1"; do
        if [ -f "$file" ]; then
            head -n 1 "$file"
            return
        fi
    done
}

binding_path() {
    for file in /bindings/*/"$1" /bindings/"$1"; do
        if [ -f "$file" ]; then
            echo "$file"
            return
        fi
    done
}

user="${POSTGRES_USER:-$(binding username)}"
database="${POSTGRES_DB:-$(binding database)}"
password_file="${POSTGRES_PASSWORD_FILE:-$(binding_path password)}"
user="${user:-app}"
database="${database:-$user}"

for name in "$user" "$database"; do
    case "$name" in
        *[!a-z0-9_]* | [0-9]* | "" | postgres) fail "user and database must be of [a-z0-9_], not begin with a digit, and not be postgres" ;;
    esac
done

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    { [ -n "$password_file" ] && [ -s "$password_file" ]; } || fail "no password: set POSTGRES_PASSWORD_FILE or mount a binding"
    # Made beside and renamed: who is killed here leaves nothing that looks like a database. PGDATA may be a mount
    # point, which cannot be renamed, so the new cluster's content moves in, PG_VERSION last.
    new="$PGDATA/.new"
    rm -rf "$new"
    mkdir -p "$new"
    initdb --pgdata "$new" --username postgres --auth-local trust --auth-host scram-sha-256 \
        --encoding UTF8 --locale C.UTF-8 --data-checksums --no-instructions >&2

    postgres --single -D "$new" postgres >/dev/null <<SQL
CREATE DATABASE "$database"
SQL
    postgres --single -D "$new" postgres >/dev/null <<SQL
CREATE ROLE "$user" LOGIN
ALTER DATABASE "$database" OWNER TO "$user"
REVOKE ALL ON DATABASE "$database" FROM PUBLIC
SQL

    cat >"$new/pg_hba.conf" <<HBA
# The superuser only through the socket inside the container; the one user by password, to its own database.
local   all           postgres              peer map=owner
local   "$database"   "$user"               scram-sha-256
host    "$database"   "$user"   0.0.0.0/0   scram-sha-256
host    "$database"   "$user"   ::/0        scram-sha-256
HBA
    echo "owner app postgres" >"$new/pg_ident.conf"

    for entry in "$new"/* ; do
        name="${entry##*/}"
        [ "$name" = PG_VERSION ] && continue
        rm -rf "${PGDATA:?}/$name"
        mv "$entry" "$PGDATA/"
    done
    sync
    mv "$new/PG_VERSION" "$PGDATA/"
    rm -rf "$new"
fi

# The password is what the file says now, at every start: changing it is changing the file. It goes through standard
# input, so that it stands in no command line, and nothing of the statement is logged.
if [ -n "$password_file" ] && [ -s "$password_file" ]; then
    password="$(head -n 1 "$password_file" | sed "s/'/''/g")"
    printf "ALTER ROLE \"%s\" PASSWORD '%s'\n" "$user" "$password" |
        postgres --single -D "$PGDATA" -c log_statement=none -c log_min_error_statement=panic \
            -c password_encryption=scram-sha-256 -c standard_conforming_strings=on postgres >/dev/null
    unset password
fi

exec postgres -D "$PGDATA" \
    -c listen_addresses='*' \
    -c unix_socket_directories=/tmp \
    -c password_encryption=scram-sha-256 \
    -c ssl=off \
    -c jit=off \
    -c log_destination=stderr \
    -c logging_collector=off \
    -c shared_buffers="${POSTGRES_SHARED_BUFFERS:-32MB}" \
    -c max_connections="${POSTGRES_MAX_CONNECTIONS:-50}" \
    -c dynamic_shared_memory_type=mmap \
    "$@"
