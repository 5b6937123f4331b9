#!/bin/sh
# Whether an installed fastticket works: the demo, a login, a logout, by curl.
# try_demo.sh COMMAND [PORT]   COMMAND is the installed `fastticket`; PORT and the next two are free.
set -eu
command=$1 port=${2:-18080}
folder=$(mktemp -d)
cd "$folder"
"$command" --version
"$command" demo --port "$port" --app-ports "$((port + 1)),$((port + 2))" >demo.log 2>&1 &
demo=$!
trap 'kill "$demo" 2>/dev/null; wait "$demo" 2>/dev/null || true; rm -rf "$folder"' EXIT

url=http://127.0.0.1:$port
tries=0
until curl -sS -o page.html "$url/login" 2>curl.log; do
    tries=$((tries + 1))
    if [ "$tries" = 200 ] || ! kill -0 "$demo" 2>/dev/null; then
        cat curl.log demo.log
        exit 1
    fi
    sleep 0.1
done

says() { # says WHAT OPTION...   curl's answer is WHAT
    want=$1
    shift
    got=$(curl -sS -o answer -w '%{http_code}' "$@")
    echo "$* -> $got $(head -c 60 answer | tr '\n' ' ')"
    [ "$got" = "$want" ] || { cat demo.log; exit 1; }
}

says 401 "$url/whoami"
says 200 -H 'Accept: text/html' "$url/login" # as a browser asks, which gets a page
grep -q '<form' answer
curl -fsS -o /dev/null -c jar -d user=alice "$url/login"
says 200 -b jar "$url/whoami"
grep -q alice answer
says 200 -b jar -H 'Accept: text/html' "$url/"
grep -q '<script' answer
curl -fsS -o /dev/null -b jar -X POST "$url/logout"
says 401 -b jar "$url/whoami"
echo "the demo works"
