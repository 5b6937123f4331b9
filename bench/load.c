/* Loader and upstream in one spinning process, so that a gateway on another core is the bottleneck and its sends pay no wake-up.
 *
 *     load CONNECTIONS TICKETS tcp | load CONNECTIONS TICKETS PATH-OF-A-UNIX-SOCKET
 *
 * TICKETS is a file with one ticket a line; requests carry them in turn. Commands on standard input, answers (a JSON line each) on
 * standard output:
 *
 *     (at the start)    {"upstream": "127.0.0.1:40123",     where the gateway shall connect to
 *                        "auth": "127.0.0.1:40124"}         and where it may ask whether a request is good: it always is
 *     connect PORT      {"connections": 64}                 to the gateway, on 127.0.0.1
 *     slice MS N        {"requests": 15234, ...}            N requests in flight for so long, then until all are answered; they go over
 *                                                           all connections in turn, one at a time on each
 *     pace MS RATE      {"requests": 20000, "failed": 0,    RATE requests a second, due at even times whatever became of those before;
 *                        "reopened": 3, "closed": 0, ...}   a latency counts from when its request was due. Here the gateway may close
 *                                                           connections: "reopened" are those whose last answer announced it, "closed"
 *                                                           those that closed while idle and had not; whatever else is not a good
 *                                                           answer is "failed". Nothing is sent again
 *
 * "identified" are requests that came to the upstream with their user, `user-00017` for the ticket in line 17, in X-Forwarded-User;
 * "vouched_for" those with user-00000, which is all that the auth server ever says.
 *
 * Between commands it sleeps. Every answer is checked: status 200, as long as it says, and that of the request it was asked for.
 * Anything else ends the process with a message, but for `pace`: a benchmark with wrong answers is none. `bench/loader.py` builds and
 * drives it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    CLIENTS_MAX = 16384,
    SERVERS_MAX = 8192,
    TICKETS_MAX = 1000000,
    TICKET_CHARS_MAX = 340,
    MESSAGE_BYTES_MAX = 4096,
    EVENTS_MAX = 256,
    NUMBER_CHARS = 8,
    SETTLE_MS = 5000, /* for the answers that are out when a slice ends */
    BUCKETS_AN_OCTAVE = 32,
    OCTAVES = 40,
};

/* What a browser sends, with a ticket of a short name about 400 bytes. The number tells answers apart. */
static const char request_start[] = "GET /api/items/";
static const char request_rest[] =
    " HTTP/1.1\r\n"
    "Host: shop.example.com\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
    "Accept: application/json, text/plain, */*\r\n"
    "Accept-Language: en-US,en;q=0.5\r\n"
    "Accept-Encoding: gzip, deflate\r\n"
    "Connection: keep-alive\r\n"
    "Cookie: theme=dark; ticket=";
static const char request_end[] = "\r\n\r\n";

static const char response_start[] =
    "HTTP/1.1 200 OK\r\n"
    "Server: origin/1.0\r\n"
    "Date: Sat, 01 Aug 2026 12:00:00 GMT\r\n"
    "Content-Type: application/json\r\n"
    "Cache-Control: private, no-cache\r\n"
    "Vary: Accept-Encoding\r\n"
    "X-Request-Cost: 3\r\n"
    "Content-Length: 181\r\n"
    "\r\n"
    "{\"id\": \"";
static const char response_rest[] =
    "\", \"name\": \"A thing to be bought by somebody who is logged in\", \"price\": \"19.99\", \"currency\": \"EUR\", "
    "\"stock\": 42, \"tags\": [\"useful\", \"blue\", \"new\"], \"rating\": 4.5}\r\n";
enum { BODY_BYTES = 181 };
_Static_assert(sizeof "{\"id\": \"" - 1 + NUMBER_CHARS + sizeof response_rest - 1 == BODY_BYTES, "Content-Length");

/* What an auth server says that nginx's auth_request, Traefik's ForwardAuth and the like are told to ask. */
static const char auth_response[] =
    "HTTP/1.1 200 OK\r\n"
    "X-Forwarded-User: user-00000\r\n"
    "Content-Length: 0\r\n"
    "\r\n";

enum side { LISTENER, AUTH_LISTENER, CLIENT, SERVER, AUTH_SERVER };

struct connection {
    int fd; /* -1: a free slot */
    enum side side;
    bool is_waiting; /* CLIENT: for an answer */
    bool watches_out;
    uint32_t number; /* CLIENT: of the request in flight */
    int64_t sent_at_ns;
    size_t in_size;
    size_t out_size;
    size_t out_sent;
    char in[MESSAGE_BYTES_MAX + 1];
    char out[MESSAGE_BYTES_MAX];
};

static struct connection listener = {.fd = -1, .side = LISTENER}, auth_listener = {.fd = -1, .side = AUTH_LISTENER};
static struct connection *clients, *servers;
static int client_count, next_client;
static char (*tickets)[TICKET_CHARS_MAX + 2];
static int ticket_count;
static int epoll_fd;

static uint32_t next_number;
static int in_flight, gateway_port;
static int64_t slice_ends_ns, last_answer_ns;
static bool is_paced;

/* Of the slice. */
static uint64_t requests, identified, vouched_for, failed, reopened, closed_idle;
static uint64_t histogram[OCTAVES * BUCKETS_AN_OCTAVE];
static int64_t slowest_ns;

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputs("\n", stderr);
    va_end(arguments);
    exit(1);
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---- histogram: logarithmic, 32 buckets an octave, so within 3 % ---- */

static int bucket_of(int64_t ns) {
    if (ns < BUCKETS_AN_OCTAVE) return (int)ns;
    int octave = 63 - __builtin_clzll((uint64_t)ns) - 5; /* 5: log2 of BUCKETS_AN_OCTAVE */
    return (octave + 1) * BUCKETS_AN_OCTAVE + (int)(ns >> octave) - BUCKETS_AN_OCTAVE;
}

static double bucket_us(int bucket) {
    int octave = bucket / BUCKETS_AN_OCTAVE - 1;
    if (octave < 0) return bucket / 1e3;
    return (double)((int64_t)(bucket % BUCKETS_AN_OCTAVE + BUCKETS_AN_OCTAVE + 1) << octave) / 1e3;
}

static double percentile_us(double share) {
    uint64_t wanted = (uint64_t)((double)requests * share), seen = 0;
    for (int bucket = 0; bucket < OCTAVES * BUCKETS_AN_OCTAVE; bucket++) {
        seen += histogram[bucket];
        if (seen > wanted) return fmin(bucket_us(bucket), (double)slowest_ns / 1e3);
    }
    return (double)slowest_ns / 1e3;
}

/* ---- sockets ---- */

static void watch(struct connection *c, uint32_t events, int operation) {
    struct epoll_event event = {.events = events | EPOLLET, .data = {.ptr = c}};
    if (epoll_ctl(epoll_fd, operation, c->fd, &event)) die("epoll_ctl: %s", strerror(errno));
}

static void set_no_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* a Unix socket has none, and needs none */
}

static void close_server(struct connection *c) {
    close(c->fd);
    c->fd = -1;
}

static void flush(struct connection *c) {
    while (c->out_sent < c->out_size) {
        ssize_t sent = send(c->fd, c->out + c->out_sent, c->out_size - c->out_sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent >= 0) {
            c->out_sent += (size_t)sent;
            continue;
        }
        if (errno == EINTR) continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            if (!c->watches_out) watch(c, EPOLLIN | EPOLLRDHUP | EPOLLOUT, EPOLL_CTL_MOD);
            c->watches_out = true;
            return;
        }
        if (c->side == SERVER || c->side == AUTH_SERVER)
            close_server(c);
        else if (!is_paced)
            die("send to the gateway: %s", strerror(errno));
        else
            c->out_sent = c->out_size; /* that it has closed is read next */
        return;
    }
}

/* Once: what does not fill the buffer was all there is, and epoll tells of what comes after. False: the peer has closed. */
static bool receive(struct connection *c) {
    ssize_t size = recv(c->fd, c->in + c->in_size, MESSAGE_BYTES_MAX - c->in_size, MSG_DONTWAIT);
    if (size > 0) {
        c->in_size += (size_t)size;
        if (c->in_size == MESSAGE_BYTES_MAX) die("a message of %d bytes or more", MESSAGE_BYTES_MAX);
        return true;
    }
    return size < 0 && (errno == EAGAIN || errno == EINTR);
}

/* ---- upstream ---- */

static void prepare_server(struct connection *c) {
    char *at = c->out;
    if (c->side == AUTH_SERVER) {
        at = mempcpy(at, auth_response, sizeof auth_response - 1);
    } else {
        at = mempcpy(at, response_start, sizeof response_start - 1);
        at += NUMBER_CHARS;
        at = mempcpy(at, response_rest, sizeof response_rest - 1);
    }
    c->out_size = c->out_sent = (size_t)(at - c->out);
    c->in_size = 0;
    c->watches_out = false;
}

static struct connection *free_server(void) {
    for (int i = 0; i < SERVERS_MAX; i++)
        if (servers[i].fd < 0) return &servers[i];
    die("more than %d connections from the gateway", SERVERS_MAX);
}

static void accept_servers(const struct connection *from) {
    int fd;
    while ((fd = accept(from->fd, NULL, NULL)) >= 0 || errno == EINTR || errno == ECONNABORTED) {
        if (fd < 0) continue;
        struct connection *c = free_server();
        c->fd = fd;
        c->side = from->side == AUTH_LISTENER ? AUTH_SERVER : SERVER;
        set_no_delay(fd);
        prepare_server(c);
        watch(c, EPOLLIN | EPOLLRDHUP, EPOLL_CTL_ADD);
    }
    if (errno != EAGAIN) die("accept: %s", strerror(errno));
}

/* Whether the request names this user. Envoy writes the names of fields in small letters. */
static bool names_user(const struct connection *c, uint32_t user) {
    char field[2][48];
    for (int i = 0; i < 2; i++) {
        int size = snprintf(field[i], sizeof field[i], "\r\n%s: user-%05u\r\n", i ? "x-forwarded-user" : "X-Forwarded-User", user);
        if (memmem(c->in, c->in_size, field[i], (size_t)size)) return true;
    }
    return false;
}

static uint32_t read_number(const char *at) {
    char digits[NUMBER_CHARS + 1] = {0};
    memcpy(digits, at, NUMBER_CHARS);
    return (uint32_t)strtoul(digits, NULL, 16);
}

static void on_server(struct connection *c) {
    flush(c);
    if (c->fd < 0) return;
    if (!receive(c)) {
        close_server(c);
        return;
    }
    if (c->in_size < 4 || memcmp(c->in + c->in_size - 4, "\r\n\r\n", 4) != 0) return; /* more to come */
    if (c->out_sent < c->out_size) die("a second request before the first was answered");
    if (c->side == SERVER) {
        if (c->in_size < sizeof request_start - 1 + NUMBER_CHARS || memcmp(c->in, request_start, sizeof request_start - 1) != 0)
            die("not the request that was sent: %.*s", (int)c->in_size, c->in);
        identified += names_user(c, read_number(c->in + sizeof request_start - 1) % (uint32_t)ticket_count);
        vouched_for += names_user(c, 0);
        memcpy(c->out + sizeof response_start - 1, c->in + sizeof request_start - 1, NUMBER_CHARS);
    }
    c->in_size = 0;
    c->out_sent = 0;
    flush(c);
}

/* ---- loader ---- */

static void prepare_client(struct connection *c) {
    memcpy(c->out, request_start, sizeof request_start - 1);
    memcpy(c->out + sizeof request_start - 1 + NUMBER_CHARS, request_rest, sizeof request_rest - 1);
}

static void write_number(char *at, uint32_t number) {
    for (int i = NUMBER_CHARS - 1; i >= 0; i--, number >>= 4) at[i] = "0123456789abcdef"[number & 15];
}

static void send_request(struct connection *c, int64_t at_ns) {
    const char *ticket = tickets[next_number % (uint32_t)ticket_count];
    char *at = c->out + sizeof request_start - 1;
    c->number = next_number++;
    write_number(at, c->number);
    at = mempcpy(at + NUMBER_CHARS + sizeof request_rest - 1, ticket, strlen(ticket));
    at = mempcpy(at, request_end, sizeof request_end - 1);
    c->out_size = (size_t)(at - c->out);
    c->out_sent = 0;
    c->in_size = 0;
    c->is_waiting = true;
    c->sent_at_ns = at_ns;
    in_flight++;
    flush(c);
}

/* On the next connection that waits for nothing: there are at most as many requests in flight as connections. */
static void send_next_request(int64_t at_ns) {
    while (clients[next_client].is_waiting) next_client = (next_client + 1) % client_count;
    struct connection *c = &clients[next_client];
    next_client = (next_client + 1) % client_count;
    send_request(c, at_ns);
}

static void connect_client(struct connection *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)gateway_port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address)) die("connect: %s", strerror(errno));
    set_no_delay(c->fd);
    c->in_size = c->out_size = c->out_sent = 0;
    c->is_waiting = c->watches_out = false;
    watch(c, EPOLLIN | EPOLLRDHUP, EPOLL_CTL_ADD);
}

/* A connection that has ended, or whose gateway has broken a rule. */
static void reopen(struct connection *c, uint64_t *counter) {
    *counter += 1;
    in_flight -= c->is_waiting;
    close(c->fd);
    connect_client(c);
}

static size_t content_length(const char *head, const char *end) {
    static const char name[] = "\r\ncontent-length:";
    for (const char *at = head; (at = memchr(at, '\r', (size_t)(end - at))) != NULL; at++)
        if ((size_t)(end - at) > sizeof name && strncasecmp(at, name, sizeof name - 1) == 0)
            return strtoul(at + sizeof name - 1, NULL, 10);
    die("an answer without Content-Length: %.*s", (int)(end - head), head);
}

static bool is_answered(struct connection *c) {
    char number[NUMBER_CHARS];
    char *end = memmem(c->in, c->in_size, "\r\n\r\n", 4);
    if (!end) return false;
    if (memcmp(c->in, "HTTP/1.1 200", 12) != 0) {
        if (!is_paced) die("not a 200: %.*s", (int)c->in_size, c->in);
        reopen(c, &failed);
        return false;
    }
    c->in[c->in_size] = 0;
    const char *body = end + 4;
    size_t body_size = c->in_size - (size_t)(body - c->in), wanted = content_length(c->in, end);
    if (body_size < wanted) return false;
    if (body_size > wanted || wanted != BODY_BYTES) die("an answer of another length: %s", c->in);
    write_number(number, c->number);
    if (memcmp(body + 8, number, NUMBER_CHARS) != 0) die("the answer to another request than %.8s: %s", number, c->in);
    return true;
}

static void on_client(struct connection *c) {
    flush(c);
    if (!receive(c)) {
        if (!is_paced) die("the gateway closed a connection");
        reopen(c, c->is_waiting ? &failed : &closed_idle);
        return;
    }
    if (!c->is_waiting) {
        if (c->in_size) die("an answer that nobody asked for: %.*s", (int)c->in_size, c->in);
        return;
    }
    if (!is_answered(c)) return;
    int64_t now = now_ns();
    int64_t took_ns = now - c->sent_at_ns;
    int bucket = bucket_of(took_ns);
    histogram[bucket < OCTAVES * BUCKETS_AN_OCTAVE ? bucket : OCTAVES * BUCKETS_AN_OCTAVE - 1]++;
    if (took_ns > slowest_ns) slowest_ns = took_ns;
    requests++;
    last_answer_ns = now;
    c->is_waiting = false;
    in_flight--;
    if (is_paced && memmem(c->in, c->in_size, "\r\nConnection: close\r\n", 21)) {
        reopen(c, &reopened);
        return;
    }
    c->in_size = 0;
    if (!is_paced && now < slice_ends_ns) send_next_request(now);
}

static void on_client_event(struct connection *c, uint32_t events) {
    uint64_t ended = failed + reopened + closed_idle;
    on_client(c);
    bool is_same = failed + reopened + closed_idle == ended;
    /* The end came with the last answer, which was all that was read; no further event tells of it. */
    if (is_paced && is_same && !c->is_waiting && events & (EPOLLRDHUP | EPOLLHUP)) reopen(c, &closed_idle);
}

/* ---- commands ---- */

static void poll_once(void) {
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(epoll_fd, events, EVENTS_MAX, 0);
    for (int i = 0; i < count; i++) {
        struct connection *c = events[i].data.ptr;
        if (c->side == LISTENER || c->side == AUTH_LISTENER)
            accept_servers(c);
        else if (c->side == CLIENT)
            on_client_event(c, events[i].events);
        else
            on_server(c);
    }
}

static void connect_clients(int port) {
    gateway_port = port;
    for (int i = 0; i < client_count; i++) {
        clients[i].side = CLIENT;
        prepare_client(&clients[i]);
        connect_client(&clients[i]);
    }
    printf("{\"connections\": %d}\n", client_count);
}

static void forget_slice(void) {
    requests = identified = vouched_for = failed = reopened = closed_idle = 0;
    slowest_ns = 0;
    memset(histogram, 0, sizeof histogram);
}

static void settle(void) {
    int64_t since_ns = now_ns();
    while (in_flight) {
        poll_once();
        if (now_ns() > since_ns + SETTLE_MS * (int64_t)1000000) die("%d requests were never answered", in_flight);
    }
}

static void tell_slice(int64_t start_ns) {
    printf("{\"requests\": %llu, \"seconds\": %.6f, \"identified\": %llu, \"vouched_for\": %llu, \"failed\": %llu, \"reopened\": %llu, "
           "\"closed\": %llu, \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"most_us\": %.1f}\n",
           (unsigned long long)requests, (double)(last_answer_ns - start_ns) / 1e9, (unsigned long long)identified,
           (unsigned long long)vouched_for, (unsigned long long)failed, (unsigned long long)reopened, (unsigned long long)closed_idle,
           percentile_us(0.5), percentile_us(0.99), percentile_us(0.999), (double)slowest_ns / 1e3);
}

static void run_slice(int ms, int at_once) {
    int64_t start_ns = now_ns();
    poll_once(); /* what happened since the last one, such as pooled connections that were closed */
    forget_slice();
    slice_ends_ns = start_ns + (int64_t)ms * 1000000;
    for (int i = 0; i < at_once; i++) send_next_request(now_ns());
    while (now_ns() < slice_ends_ns) poll_once();
    settle();
    tell_slice(start_ns);
}

static void run_paced(int ms, int rate) {
    is_paced = true;
    forget_slice();
    poll_once(); /* with what was closed since the last command */
    int64_t start_ns = last_answer_ns = now_ns();
    slice_ends_ns = start_ns + (int64_t)ms * 1000000;
    for (int64_t number = 0, due_ns = start_ns; due_ns < slice_ends_ns; due_ns = start_ns + ++number * 1000000000 / rate) {
        do poll_once();
        while (now_ns() < due_ns || (in_flight == client_count && now_ns() < last_answer_ns + SETTLE_MS * (int64_t)1000000));
        if (in_flight == client_count) die("no answers for %d ms", SETTLE_MS);
        send_next_request(due_ns);
    }
    settle();
    is_paced = false;
    tell_slice(start_ns);
}

/* ---- start ---- */

static void read_tickets(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file) die("%s: %s", path, strerror(errno));
    tickets = calloc(TICKETS_MAX, sizeof *tickets);
    if (!tickets) die("no memory");
    while (ticket_count < TICKETS_MAX && fgets(tickets[ticket_count], sizeof *tickets, file)) {
        if (!strchr(tickets[ticket_count], '\n')) die("%s: a ticket of more than %d characters", path, TICKET_CHARS_MAX);
        tickets[ticket_count][strcspn(tickets[ticket_count], "\r\n")] = 0;
        ticket_count += tickets[ticket_count][0] != 0;
    }
    fclose(file);
    if (!ticket_count) die("%s: no tickets", path);
}

static int listen_tcp(struct connection *at) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    at->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (at->fd < 0 || bind(at->fd, (struct sockaddr *)&address, size) || listen(at->fd, 1024) ||
        getsockname(at->fd, (struct sockaddr *)&address, &size))
        die("listen: %s", strerror(errno));
    watch(at, EPOLLIN, EPOLL_CTL_ADD);
    return ntohs(address.sin_port);
}

static void listen_unix(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) die("%s: too long for a socket's path", path);
    strcpy(address.sun_path, path);
    listener.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (listener.fd < 0 || bind(listener.fd, (struct sockaddr *)&address, sizeof address) || listen(listener.fd, 1024))
        die("%s: %s", path, strerror(errno));
    watch(&listener, EPOLLIN, EPOLL_CTL_ADD);
}

static void listen_at(const char *where) {
    if (strcmp(where, "tcp") == 0)
        printf("{\"upstream\": \"127.0.0.1:%d\"", listen_tcp(&listener));
    else {
        listen_unix(where);
        printf("{\"upstream\": \"unix:%s\"", where);
    }
    printf(", \"auth\": \"127.0.0.1:%d\"}\n", listen_tcp(&auth_listener));
}

int main(int argument_count, char **arguments) {
    char line[64];
    int number, at_once;
    client_count = argument_count == 4 ? atoi(arguments[1]) : 0;
    if (client_count < 1 || client_count > CLIENTS_MAX) die("usage: load CONNECTIONS TICKETS tcp|PATH");
    setvbuf(stdout, NULL, _IOLBF, 0);
    read_tickets(arguments[2]);
    clients = calloc((size_t)client_count, sizeof *clients);
    servers = calloc(SERVERS_MAX, sizeof *servers);
    epoll_fd = epoll_create1(0);
    if (!clients || !servers || epoll_fd < 0) die("no memory");
    for (int i = 0; i < SERVERS_MAX; i++) servers[i].fd = -1;
    listen_at(arguments[3]);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "connect %d", &number) == 1)
            connect_clients(number);
        else if (sscanf(line, "slice %d %d", &number, &at_once) == 2 && at_once >= 1 && at_once <= client_count)
            run_slice(number, at_once);
        else if (sscanf(line, "pace %d %d", &number, &at_once) == 2 && at_once >= 1)
            run_paced(number, at_once);
        else
            die("unknown command: %s", line);
    }
    return 0;
}
