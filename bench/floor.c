/* The floor under every proxy: each connection has an upstream connection of its own, and bytes go from one to the other unread.
 *
 *     floor UPSTREAM-PORT         prints {"listening": PORT}, both on 127.0.0.1
 *
 * Two recv and two send a request and a share of an epoll_wait; what a gateway costs above this is what it does. Good for messages
 * that fit into a socket's buffer, and for nothing else. `bench/gateway.py` builds and runs it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS_MAX = 128, BUFFER_BYTES = 65536 };

struct end {
    int fd;
    struct end *other; /* NULL: the listener */
};

static int epoll_fd;
static struct sockaddr_in upstream = {.sin_family = AF_INET};

static void require(int holds, const char *what) {
    if (holds) return;
    perror(what);
    exit(1);
}

static void watch(struct end *end) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data = {.ptr = end}};
    require(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, end->fd, &event) == 0, "epoll_ctl");
}

static void set_no_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void accept_all(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct end *pair = calloc(2, sizeof *pair);
        require(pair != NULL, "calloc");
        pair[0] = (struct end){fd, &pair[1]};
        pair[1] = (struct end){socket(AF_INET, SOCK_STREAM, 0), &pair[0]};
        require(connect(pair[1].fd, (struct sockaddr *)&upstream, sizeof upstream) == 0, "connect");
        set_no_delay(pair[0].fd);
        set_no_delay(pair[1].fd);
        watch(&pair[0]);
        watch(&pair[1]);
    }
}

static void pump(struct end *from) {
    static char buffer[BUFFER_BYTES];
    ssize_t size = recv(from->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) { /* both ends are closed with the process: here nobody comes and goes */
        shutdown(from->other->fd, SHUT_RDWR);
        return;
    }
    require(send(from->other->fd, buffer, (size_t)size, MSG_NOSIGNAL) == size, "send");
}

static int listen_anywhere(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = upstream.sin_addr};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    require(fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0 && listen(fd, 4096) == 0 &&
                getsockname(fd, (struct sockaddr *)&address, &size) == 0,
            "listen");
    printf("{\"listening\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(int argument_count, char **arguments) {
    struct epoll_event events[EVENTS_MAX];
    if (argument_count != 2) {
        fputs("usage: floor UPSTREAM-PORT\n", stderr);
        return 2;
    }
    upstream.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    upstream.sin_port = htons((uint16_t)atoi(arguments[1]));
    epoll_fd = epoll_create1(0);
    struct end listener = {listen_anywhere(), NULL};
    watch(&listener);
    for (;;) {
        int count = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);
        for (int i = 0; i < count; i++) {
            struct end *end = events[i].data.ptr;
            if (end->other == NULL)
                accept_all(end->fd);
            else
                pump(end);
        }
    }
}
