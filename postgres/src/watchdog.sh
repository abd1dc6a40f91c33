# Stops the server of folder $1 when nobody uses it any more, however its users ended.
#
# Standard input is the read end of the FIFO $1/users, which every process that uses the server keeps
# open for writing. No byte is ever written: `read` returns when the last of them is gone. The FIFO's
# read end doubles as a sign of life: opening it for writing fails when this process was killed.
# That is why `read`, which needs no process of its own, waits here, and why no other command than
# the one that must gets the descriptor.

PATH="$PATH:/usr/bin:/bin"
dir=$1
exec 3<&0 </dev/null

# Is process $1 a server of this folder, and not another one that got its number?
is_server() {
    if [ -d /proc/self ]; then
        tr '\0' ' ' <"/proc/$1/cmdline"
    else
        ps -ww -o command= -p "$1"
    fi 2>/dev/null | grep -qF -e " -D $dir/data "
}

find_server() {
    server=$(head -n 1 "$dir/data/postmaster.pid" 2>/dev/null)
}

# Fast shutdown; what ignores it for half a minute is ended less gently.
stop_server() {
    for signal in INT QUIT KILL; do
        tries=600
        while [ "$tries" -gt 0 ]; do
            [ -n "$server" ] && is_server "$server" || return 0
            [ "$tries" -lt 600 ] || kill -s "$signal" "$server"
            tries=$((tries - 1))
            sleep 0.05
        done
    done
}

while :; do
    read -r _ <&3

    # A test runner that starts a process for each test leaves short gaps.
    # The server is looked up before: the folder may be deleted meanwhile.
    find_server 3<&-
    sleep 1 3<&-

    # After the rename nobody can come in unseen. Who did so before is a writer of the FIFO: the
    # second reader then does not see its end at once, is killed, and all goes on as before. If it is
    # killed only because the machine is slow, the next round tries again.
    mv -f "$dir/users" "$dir/users.leaving" 2>/dev/null 3<&- || break
    cat <&3 >/dev/null &
    reader=$!
    { sleep 0.2; kill "$reader"; } 2>/dev/null 3<&- &
    timer=$!
    if wait "$reader"; then
        kill "$timer" 2>/dev/null
        find_server 3<&-
        break
    fi
    mv -f "$dir/users.leaving" "$dir/users" 3<&-
done

# Who wants to start the server now waits until users.leaving is gone.
stop_server
rm -f "$dir/users.leaving"
