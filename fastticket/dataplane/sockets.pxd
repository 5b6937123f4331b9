# The C library's sockets and epoll, as far as the data plane uses them.

from libc.stdint cimport uint32_t, uint64_t

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    uint32_t EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLERR, EPOLLHUP, EPOLLET
    int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL
    int epoll_create1(int flags)
    int epoll_ctl(int epoll_fd, int operation, int fd, epoll_event *event)
    int epoll_wait(int epoll_fd, epoll_event *events, int events_max, int timeout_ms)

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
    int socket(int family, int type, int protocol)
    int connect(int fd, const sockaddr *address, socklen_t size)
    int accept4(int fd, sockaddr *address, socklen_t *size, int flags)
    int getsockopt(int fd, int level, int option, void *value, socklen_t *size)
    int setsockopt(int fd, int level, int option, const void *value, socklen_t size)
    int shutdown(int fd, int how)

cdef extern from * nogil:
    """
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    /* As recv and send, but past the C library. There both are points at which a thread can be cancelled,
       which takes two locked instructions a call in any process that has had a second thread. Nobody
       cancels ours. */
    static inline ssize_t straight_recv(int fd, void *at, size_t size, int flags) {
    #ifdef SYS_recvfrom
        return syscall(SYS_recvfrom, fd, at, size, flags, NULL, NULL);
    #else
        return recv(fd, at, size, flags);
    #endif
    }

    static inline ssize_t straight_send(int fd, const void *at, size_t size, int flags) {
    #ifdef SYS_sendto
        return syscall(SYS_sendto, fd, at, size, flags, NULL, 0);
    #else
        return send(fd, at, size, flags);
    #endif
    }
    """
    ssize_t recv "straight_recv"(int fd, void *at, size_t size, int flags)
    ssize_t send "straight_send"(int fd, const void *at, size_t size, int flags)

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
    int close(int fd)
