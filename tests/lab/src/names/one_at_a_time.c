/* One look-up at a time in a process. nss_wrapper (1.1) reads its hosts file without a lock: two threads that look up while it
   changes crash, and the second of two first ones is told of no name. Loaded before it; can go when it locks. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <pthread.h>

typedef int lookup(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
    static lookup *next;
    int answer = EAI_SYSTEM;
    pthread_mutex_lock(&one);
    if (next == NULL)
        next = (lookup *)dlsym(RTLD_NEXT, "getaddrinfo");
    if (next != NULL)
        answer = next(node, service, hints, found);
    pthread_mutex_unlock(&one);
    return answer;
}
