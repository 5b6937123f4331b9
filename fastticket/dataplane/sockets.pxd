# The C library's sockets and epoll, as far as the data plane uses them. In a debug build each call
# that may go to the kernel sees that its thread holds no lock (core/lock).

from libc.stdint cimport uint32_t, uint64_t

from fastticket.core.lock cimport outside_locks

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    uint32_t EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLERR, EPOLLHUP, EPOLLET
    int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL
    int epoll_create1(int flags)
    int unguarded_epoll_ctl "epoll_ctl"(int epoll_fd, int operation, int fd, epoll_event *event)
    int unguarded_epoll_wait "epoll_wait"(int epoll_fd, epoll_event *events, int events_max, int timeout_ms)

cdef extern from "<sys/eventfd.h>" nogil:
    ctypedef uint64_t eventfd_t
    int EFD_CLOEXEC, EFD_NONBLOCK
    int eventfd(unsigned int initial, int flags)
    int unguarded_eventfd_write "eventfd_write"(int fd, eventfd_t value)
    int eventfd_read(int fd, eventfd_t *value)

cdef extern from "<fcntl.h>" nogil:
    int F_DUPFD_CLOEXEC
    int fcntl(int fd, int command, int argument)

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    struct sockaddr:
        pass
    struct sockaddr_storage:
        unsigned short ss_family
    struct linger:
        int l_onoff
        int l_linger
    int AF_INET, AF_INET6, AF_UNIX, SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC, SOL_SOCKET, SO_ERROR, SO_LINGER, SHUT_WR
    int MSG_NOSIGNAL, MSG_PEEK
    int unguarded_socket "socket"(int family, int type, int protocol)
    int unguarded_connect "connect"(int fd, const sockaddr *address, socklen_t size)
    int unguarded_accept4 "accept4"(int fd, sockaddr *address, socklen_t *size, int flags)
    int unguarded_getsockopt "getsockopt"(int fd, int level, int option, void *value, socklen_t *size)
    int unguarded_setsockopt "setsockopt"(int fd, int level, int option, const void *value, socklen_t size)
    int unguarded_shutdown "shutdown"(int fd, int how)

cdef extern from * nogil:
    """
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    /* As recv and send, but past the C library. There both are points at which a thread can be cancelled,
       which takes two locked instructions a call in any process that has had a second thread. Nobody
       cancels ours. ThreadSanitizer has to see them. */
    static inline ssize_t straight_recv(int fd, void *at, size_t size, int flags) {
    #if defined(SYS_recvfrom) && !defined(__SANITIZE_THREAD__)
        return syscall(SYS_recvfrom, fd, at, size, flags, NULL, NULL);
    #else
        return recv(fd, at, size, flags);
    #endif
    }

    static inline ssize_t straight_send(int fd, const void *at, size_t size, int flags) {
    #if defined(SYS_sendto) && !defined(__SANITIZE_THREAD__)
        return syscall(SYS_sendto, fd, at, size, flags, NULL, 0);
    #else
        return send(fd, at, size, flags);
    #endif
    }
    """
    ssize_t unguarded_recv "straight_recv"(int fd, void *at, size_t size, int flags)
    ssize_t unguarded_send "straight_send"(int fd, const void *at, size_t size, int flags)

cdef extern from "<netinet/in.h>" nogil:
    struct in_addr:
        pass
    struct in6_addr:
        pass
    struct sockaddr_in:
        unsigned short sin_family
        unsigned short sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        unsigned short sin6_family
        unsigned short sin6_port
        in6_addr sin6_addr
    int IPPROTO_TCP
    unsigned short htons(unsigned short port)

cdef extern from "<netinet/tcp.h>" nogil:
    int TCP_NODELAY

cdef extern from "<sys/un.h>" nogil:
    struct sockaddr_un:
        unsigned short sun_family
        char[108] sun_path

cdef extern from "<arpa/inet.h>" nogil:
    const char *inet_ntop(int family, const void *address, char *out, socklen_t size)
    int inet_pton(int family, const char *text, void *out)

cdef extern from "<unistd.h>" nogil:
    int unguarded_close "close"(int fd)


cdef inline int epoll_ctl(int epoll_fd, int operation, int fd, epoll_event *event) noexcept nogil:
    outside_locks(b"epoll_ctl")
    return unguarded_epoll_ctl(epoll_fd, operation, fd, event)


cdef inline int epoll_wait(int epoll_fd, epoll_event *events, int events_max, int timeout_ms) noexcept nogil:
    outside_locks(b"epoll_wait")
    return unguarded_epoll_wait(epoll_fd, events, events_max, timeout_ms)


cdef inline int socket(int family, int type, int protocol) noexcept nogil:
    outside_locks(b"socket")
    return unguarded_socket(family, type, protocol)


cdef inline int connect(int fd, const sockaddr *address, socklen_t size) noexcept nogil:
    outside_locks(b"connect")
    return unguarded_connect(fd, address, size)


cdef inline int accept4(int fd, sockaddr *address, socklen_t *size, int flags) noexcept nogil:
    outside_locks(b"accept4")
    return unguarded_accept4(fd, address, size, flags)


cdef inline int getsockopt(int fd, int level, int option, void *value, socklen_t *size) noexcept nogil:
    outside_locks(b"getsockopt")
    return unguarded_getsockopt(fd, level, option, value, size)


cdef inline int setsockopt(int fd, int level, int option, const void *value, socklen_t size) noexcept nogil:
    outside_locks(b"setsockopt")
    return unguarded_setsockopt(fd, level, option, value, size)


cdef inline int shutdown(int fd, int how) noexcept nogil:
    outside_locks(b"shutdown")
    return unguarded_shutdown(fd, how)


cdef inline ssize_t recv(int fd, void *at, size_t size, int flags) noexcept nogil:
    outside_locks(b"recv")
    return unguarded_recv(fd, at, size, flags)


cdef inline ssize_t send(int fd, const void *at, size_t size, int flags) noexcept nogil:
    outside_locks(b"send")
    return unguarded_send(fd, at, size, flags)


cdef inline int close(int fd) noexcept nogil:
    outside_locks(b"close")
    return unguarded_close(fd)


cdef inline int eventfd_write(int fd, eventfd_t value) noexcept nogil:
    outside_locks(b"eventfd_write")
    return unguarded_eventfd_write(fd, value)
