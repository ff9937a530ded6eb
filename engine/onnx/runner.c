//go:build cgo

#include "native.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

struct zarpa_runner {
	pthread_t thread;
	pthread_mutex_t lock; // guards what follows
	pthread_cond_t changed;
	const zarpa_library *lib; // of the call
	zarpa_call *call;         // to be run, or that runs; NULL for none
	void *status;             // of the last one
	int stopped;
	int fd; // gets a byte at the end of every run
};

static void *work(void *arg) {
	zarpa_runner *r = arg;
	pthread_mutex_lock(&r->lock);
	for (;;) {
		while (r->call == NULL && !r->stopped) pthread_cond_wait(&r->changed, &r->lock);
		if (r->call == NULL) break;
		pthread_mutex_unlock(&r->lock);
		void *status = zarpa_run(r->lib, r->call);
		pthread_mutex_lock(&r->lock);
		r->status = status;
		r->call = NULL;
		pthread_cond_broadcast(&r->changed);
		char done = 1;
		while (write(r->fd, &done, 1) < 0 && errno == EINTR) {
		}
	}
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

// begin starts the thread with all signals blocked that are for the process: they are Go's to take.
static int begin(zarpa_runner *r) {
	sigset_t mine, before;
	sigfillset(&mine);
	int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
	for (size_t i = 0; i < sizeof own / sizeof *own; i++) sigdelset(&mine, own[i]);
	pthread_sigmask(SIG_SETMASK, &mine, &before);
	int failed = pthread_create(&r->thread, NULL, work, r);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return failed;
}

zarpa_runner *zarpa_runner_start(int fd) {
	zarpa_runner *r = calloc(1, sizeof *r);
	if (r == NULL) return NULL;
	r->fd = fd;
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->changed, NULL);
	if (begin(r) != 0) {
		free(r);
		return NULL;
	}
	return r;
}

void zarpa_runner_submit(zarpa_runner *r, const zarpa_library *lib, zarpa_call *call) {
	pthread_mutex_lock(&r->lock);
	r->lib = lib;
	r->call = call;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
}

void *zarpa_runner_wait(zarpa_runner *r) {
	pthread_mutex_lock(&r->lock);
	while (r->call != NULL) pthread_cond_wait(&r->changed, &r->lock);
	void *status = r->status;
	r->status = NULL;
	pthread_mutex_unlock(&r->lock);
	return status;
}

void zarpa_runner_stop(zarpa_runner *r) {
	pthread_mutex_lock(&r->lock);
	r->stopped = 1;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
	pthread_join(r->thread, NULL);
	pthread_cond_destroy(&r->changed);
	pthread_mutex_destroy(&r->lock);
	free(r);
}
