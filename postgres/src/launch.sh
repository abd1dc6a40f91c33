# Starts the server ("$@") and waits until it has written its number into the file $1.
#
# Standard input is the starter's lock on the folder and standard output is its place among the users.
# Both stay open until the number can be read, so that a starter killed in between leaves neither a
# server that the watchdog cannot find nor two starters at once.

PATH="$PATH:/usr/bin:/bin"
pid_file=$1
shift
"$@" </dev/null >&2 &
server=$!

# A minute at most; a server that gave up is reaped while `sleep` is waited for.
tries=6000
while [ "$tries" -gt 0 ] && kill -0 "$server" 2>/dev/null; do
    written=
    { read -r written <"$pid_file"; } 2>/dev/null
    [ "$written" != "$server" ] || break
    tries=$((tries - 1))
    sleep 0.01
done
