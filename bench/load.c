/* The load's loop in C, for load.py, which spells commands before and looks at answers afterwards: what it takes for a
 * command is small beside any server's part. native.py compiles it and calls `run`.
 *
 * One thread, one epoll. Times are seconds of CLOCK_MONOTONIC, as Python's perf_counter has them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 1024, RECEIVE_BYTES = 262144, SLACK_NANOSECONDS = 1000, CLOSED = 1, NO_MEMORY = 2 };

/* native.py's `_Side` has the same fields. Arrays belong to Python, but `received`, which `release` frees. */
struct side {
    const char *commands;        /* all of them, one behind the other */
    const int64_t *ends;         /* the bytes up to the end of so many commands */
    const int64_t *marks;        /* the marks up to the end of so many answers */
    double *sent_at;             /* of each command: when it went, or when it was due */
    double *answered_at;
    char *received;
    int64_t received_bytes, room, bytes_sent, marks_seen;
    int64_t payload_left;        /* bytes of the frame that has begun */
    int32_t fd, share, sent, answered, header_bytes;
    uint8_t header[12];          /* of the frame that begins */
};

struct load {
    struct side *sides;
    const double *due;           /* of each command, in seconds from the start; NULL for a closed loop */
    const int32_t *order;        /* the connection of each */
    double *late;                /* filled: by how much each was sent late */
    double patience;
    int64_t commands;
    int32_t connections, outstanding, poll;
    int32_t mark, before;        /* a mark is this byte, behind that one; -1: behind any */
    int32_t framed;              /* answers come in WebSocket frames */
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void wait_for(struct load *load, struct side *side, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.ptr = side};
    epoll_ctl(load->poll, operation, side->fd, &event);
}

/* Send what the socket takes; be woken for what it does not. An error shows when it is read. */
static void flush(struct load *load, struct side *side)
{
    int64_t left = side->ends[side->sent] - side->bytes_sent;
    ssize_t went = send(side->fd, side->commands + side->bytes_sent, (size_t)left, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (went > 0) side->bytes_sent += went;
    if (went < left) wait_for(load, side, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
}

static void count_marks(struct load *load, struct side *side, char *at)
{
    char *end = side->received + side->received_bytes;
    for (; (at = memchr(at, load->mark, (size_t)(end - at))) != NULL; at++)
        side->marks_seen += load->before < 0 || (at > side->received && at[-1] == (char)load->before);
}

/* Keep what frames carry, and drop their headers. Return how many bytes are left. */
static int64_t unframe(struct side *side, char *data, int64_t size)
{
    int64_t kept = 0, at = 0;
    while (at < size) {
        if (side->payload_left > 0) {
            int64_t part = side->payload_left < size - at ? side->payload_left : size - at;
            memmove(data + kept, data + at, (size_t)part);
            kept += part;
            at += part;
            side->payload_left -= part;
            continue;
        }
        side->header[side->header_bytes++] = (uint8_t)data[at++];
        if (side->header_bytes < 2) continue;
        int more = side->header[1] == 126 ? 2 : side->header[1] == 127 ? 8 : 0;
        if (side->header_bytes < 2 + more) continue;
        side->payload_left = more ? 0 : side->header[1];
        for (int byte = 2; byte < 2 + more; byte++)
            side->payload_left = side->payload_left << 8 | side->header[byte];
        side->header_bytes = 0;
    }
    return kept;
}

/* Receive once; note the answers that are whole. Return 0, CLOSED or NO_MEMORY. */
static int receive(struct load *load, struct side *side)
{
    if (side->room - side->received_bytes < RECEIVE_BYTES) {
        int64_t room = 2 * side->room + RECEIVE_BYTES;
        char *larger = realloc(side->received, (size_t)room);
        if (larger == NULL) return NO_MEMORY;
        side->received = larger;
        side->room = room;
    }
    char *fresh = side->received + side->received_bytes;
    ssize_t came = recv(side->fd, fresh, RECEIVE_BYTES, MSG_DONTWAIT);
    if (came < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (came <= 0) return CLOSED;
    if (load->framed) came = unframe(side, fresh, came);
    side->received_bytes += came;
    count_marks(load, side, fresh);
    double moment = now();
    while (side->answered < side->sent && side->marks[side->answered + 1] <= side->marks_seen)
        side->answered_at[side->answered++] = moment;
    return 0;
}

static void send_more(struct load *load, struct side *side, int64_t count)
{
    int64_t left = side->share - side->sent;
    if (count > left) count = left;
    if (count <= 0) return;
    double moment = now();
    while (count--) side->sent_at[side->sent++] = moment;
    flush(load, side);
}

/* Send what is due since the start; return the seconds until the next command, or the patience where none is left. */
static double send_due(struct load *load, int64_t *next, double start)
{
    double at = now() - start;
    for (; *next < load->commands && load->due[*next] <= at; at = now() - start) {
        struct side *side = load->sides + load->order[*next];
        side->sent_at[side->sent++] = start + load->due[*next];
        load->late[*next] = at - load->due[*next];
        flush(load, side);
        ++*next;
    }
    return *next < load->commands ? load->due[*next] - at : load->patience;
}

/* Send all commands and take their answers, until nothing comes any more. Return 0, CLOSED or NO_MEMORY. */
int run(struct load *load)
{
    struct epoll_event events[EVENTS];
    int64_t missing = load->commands, next = 0;
    load->poll = epoll_create1(EPOLL_CLOEXEC);
    prctl(PR_SET_TIMERSLACK, SLACK_NANOSECONDS);
    for (int at = 0; at < load->connections; at++) wait_for(load, load->sides + at, EPOLLIN, EPOLL_CTL_ADD);
    double start = now(), heard = start, wait = load->patience;
    for (int at = 0; !load->due && at < load->connections; at++)
        send_more(load, load->sides + at, load->outstanding);
    int failure = 0;
    while (missing && !failure) {
        if (load->due) wait = send_due(load, &next, start);
        if (wait > 0) { /* epoll_wait counts in milliseconds */
            struct timespec time = {(time_t)wait, (long)(1e9 * (wait - (double)(time_t)wait))};
            ppoll(&(struct pollfd){.fd = load->poll, .events = POLLIN}, 1, &time, NULL);
        }
        int count = epoll_wait(load->poll, events, EVENTS, 0);
        if (count > 0) heard = now();
        else if ((!load->due || next == load->commands) && now() - heard > load->patience) break;
        for (int at = 0; at < count && !failure; at++) {
            struct side *side = events[at].data.ptr;
            if (events[at].events & EPOLLOUT) {
                wait_for(load, side, EPOLLIN, EPOLL_CTL_MOD);
                flush(load, side);
            }
            if (!(events[at].events & ~(uint32_t)EPOLLOUT)) continue;
            int32_t before = side->answered;
            failure = receive(load, side);
            missing -= side->answered - before;
            if (!load->due) send_more(load, side, side->answered - before);
        }
    }
    close(load->poll);
    return failure;
}

void release(struct load *load)
{
    for (int at = 0; at < load->connections; at++) free(load->sides[at].received);
}
