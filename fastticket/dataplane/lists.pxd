# Doubly linked lists of table slots: the deadlines of one length, a server's pool, a group's
# pending requests. A list is its first and last slot; the links stand in the slots.
#
# `nodes` is the node of slot 0, `stride` the size of a slot: a slot may be in several lists, by a
# node for each. `last` may be NULL for a list that nothing is appended to.

from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    NONE = 0xFFFFFFFF           # no slot


cdef struct Node:
    uint32_t next
    uint32_t previous


cdef inline Node *node_at(Node *nodes, size_t stride, uint32_t index) noexcept nogil:
    return <Node *>(<uint8_t *>nodes + index * stride)


cdef inline void append(Node *nodes, size_t stride, uint32_t *first, uint32_t *last, uint32_t index) noexcept nogil:
    cdef Node *node = node_at(nodes, stride, index)
    node.next = NONE
    node.previous = last[0]
    if last[0] != NONE:
        node_at(nodes, stride, last[0]).next = index
    else:
        first[0] = index
    last[0] = index


cdef inline void prepend(Node *nodes, size_t stride, uint32_t *first, uint32_t *last, uint32_t index) noexcept nogil:
    cdef Node *node = node_at(nodes, stride, index)
    node.previous = NONE
    node.next = first[0]
    if first[0] != NONE:
        node_at(nodes, stride, first[0]).previous = index
    elif last != NULL:
        last[0] = index
    first[0] = index


cdef inline void remove(Node *nodes, size_t stride, uint32_t *first, uint32_t *last, uint32_t index) noexcept nogil:
    cdef Node *node = node_at(nodes, stride, index)
    if node.previous != NONE:
        node_at(nodes, stride, node.previous).next = node.next
    else:
        first[0] = node.next
    if node.next != NONE:
        node_at(nodes, stride, node.next).previous = node.previous
    elif last != NULL:
        last[0] = node.previous
