/*
 * The floor under every UDP server on this kernel: recvmmsg, sendmmsg, nothing in between.
 *
 * It answers each datagram with 32 bytes, as long as a Binding success over IPv4, in batches as large as those of the
 * server it is compared with. A blocking receive with MSG_WAITFORONE spares it the poll a server needs.
 *
 * Usage: raw_echo PORT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BATCH = 64, LARGEST = 2048, ANSWER = 32 };

static struct mmsghdr in[BATCH], out[BATCH];
static struct iovec in_vec[BATCH], out_vec[BATCH];
static struct sockaddr_in from[BATCH];
static char requests[BATCH][LARGEST], answers[BATCH][ANSWER];

int main(int count, char **arguments) {
    if (count != 2)
        return 64;
    int size = 4 << 20;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(arguments[1]))};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0) {
        perror("bind");
        return 69;
    }
    for (int i = 0; i < BATCH; i++) {
        in_vec[i] = (struct iovec){requests[i], LARGEST};
        out_vec[i] = (struct iovec){answers[i], ANSWER};
        in[i].msg_hdr = (struct msghdr){.msg_name = &from[i], .msg_iov = &in_vec[i], .msg_iovlen = 1};
        out[i].msg_hdr = (struct msghdr){
            .msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &out_vec[i], .msg_iovlen = 1};
    }
    for (;;) {
        for (int i = 0; i < BATCH; i++)
            in[i].msg_hdr.msg_namelen = sizeof from[i];
        int received = recvmmsg(fd, in, BATCH, MSG_WAITFORONE, NULL);
        if (received <= 0)
            continue;
        for (int i = 0; i < received; i++)
            memcpy(answers[i], requests[i], 20);
        for (int sent = 0; sent < received;) {
            int more = sendmmsg(fd, out + sent, received - sent, 0);
            if (more <= 0)
                break;
            sent += more;
        }
    }
}
