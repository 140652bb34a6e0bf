/* Preloaded into a process, hides from it every instruction set beyond AVX2 and FMA: AVX-512, VNNI, AMX, BF16, FP16.
 *
 * Linux can make the CPUID instruction fault (arch_prctl(ARCH_SET_CPUID, 0); per thread, inherited by clone, gone after
 * exec, which preloads this file again). The handler of the fault asks the CPU, takes bits away and steps over it. XGETBV
 * does not fault: what it says of registers is of no use where no instruction set uses them.
 *
 * The program's own handler of SIGSEGV is kept beside and called for everything else; SIGSEGV is never blocked, as a fault
 * of a thread that blocks it ends the process. /proc/cpuinfo is read from the file named in ESTUDIO_TEST_CPUINFO.
 */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define BIT(n) (1u << (n))

static struct sigaction of_program = {.sa_handler = SIG_DFL};

static int (*next_sigaction)(int, const struct sigaction *, struct sigaction *);
static int (*next_pthread_sigmask)(int, const sigset_t *, sigset_t *);
static int (*next_sigprocmask)(int, const sigset_t *, sigset_t *);
static int (*next_open)(const char *, int, ...);
static FILE *(*next_fopen)(const char *, const char *);

static void find_next(void) {
    if (next_fopen)
        return;
    next_sigaction = dlsym(RTLD_NEXT, "sigaction");
    next_pthread_sigmask = dlsym(RTLD_NEXT, "pthread_sigmask");
    next_sigprocmask = dlsym(RTLD_NEXT, "sigprocmask");
    next_open = dlsym(RTLD_NEXT, "open");
    next_fopen = dlsym(RTLD_NEXT, "fopen");
}

static void hide(unsigned leaf, unsigned subleaf, unsigned *eax, unsigned *ebx, unsigned *ecx, unsigned *edx) {
    if (leaf == 7 && subleaf == 0) {
        /* AVX512 F, DQ, IFMA, PF, ER, CD, BW, VL */
        *ebx &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
        /* AVX512 VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ */
        *ecx &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14));
        /* AVX512 4VNNIW, 4FMAPS, VP2INTERSECT; AMX BF16; AVX512 FP16; AMX TILE, INT8 */
        *edx &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25));
    } else if (leaf == 7 && subleaf == 1) {
        /* AVX VNNI, AVX512 BF16, AMX FP16, AVX IFMA */
        *eax &= ~(BIT(4) | BIT(5) | BIT(21) | BIT(23));
        /* AVX VNNI INT8, NE CONVERT; AMX COMPLEX; AVX VNNI INT16; AVX10; APX */
        *edx &= ~(BIT(4) | BIT(5) | BIT(8) | BIT(10) | BIT(19) | BIT(21));
    } else if (leaf == 0x1d || leaf == 0x1e || leaf == 0x24) { /* AMX tiles, AMX products, AVX10 */
        *eax = *ebx = *ecx = *edx = 0;
    }
}

static void on_fault(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *code = (const unsigned char *)registers[REG_RIP];
    /* A general protection fault: the instruction itself was read, so that it can be looked at. */
    if (info->si_code == SI_KERNEL && code[0] == 0x0f && code[1] == 0xa2) {
        int saved = errno;
        unsigned leaf = registers[REG_RAX], subleaf = registers[REG_RCX], eax, ebx, ecx, edx;
        syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
        __asm__ volatile("cpuid" : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx) : "a"(leaf), "c"(subleaf));
        syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
        hide(leaf, subleaf, &eax, &ebx, &ecx, &edx);
        registers[REG_RAX] = eax, registers[REG_RBX] = ebx, registers[REG_RCX] = ecx, registers[REG_RDX] = edx;
        registers[REG_RIP] += 2;
        errno = saved;
    } else if (of_program.sa_flags & SA_SIGINFO) {
        of_program.sa_sigaction(number, info, context);
    } else if (of_program.sa_handler != SIG_DFL && of_program.sa_handler != SIG_IGN) {
        of_program.sa_handler(number);
    } else {
        next_sigaction(SIGSEGV, &of_program, NULL);
        raise(SIGSEGV); /* delivered when this handler returns */
    }
}

__attribute__((constructor)) static void start(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigset_t fault;
    find_next();
    sigemptyset(&fault);
    sigaddset(&fault, SIGSEGV);
    next_sigprocmask(SIG_UNBLOCK, &fault, NULL);
    next_sigaction(SIGSEGV, &action, NULL);
    if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0) != 0) {
        perror("avx2_only: this kernel or CPU has no CPUID faulting");
        _exit(125);
    }
}

int sigaction(int number, const struct sigaction *action, struct sigaction *before) {
    find_next();
    if (number != SIGSEGV)
        return next_sigaction(number, action, before);
    struct sigaction now = of_program;
    if (action)
        of_program = *action;
    if (before)
        *before = now;
    return 0;
}

sighandler_t signal(int number, sighandler_t handler) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART}, before;
    return sigaction(number, &action, &before) == 0 ? before.sa_handler : SIG_ERR;
}

static const sigset_t *without_fault(int how, const sigset_t *set, sigset_t *copy) {
    if (!set || how == SIG_UNBLOCK)
        return set;
    *copy = *set;
    sigdelset(copy, SIGSEGV);
    return copy;
}

int pthread_sigmask(int how, const sigset_t *set, sigset_t *before) {
    sigset_t copy;
    find_next();
    return next_pthread_sigmask(how, without_fault(how, set, &copy), before);
}

int sigprocmask(int how, const sigset_t *set, sigset_t *before) {
    sigset_t copy;
    find_next();
    return next_sigprocmask(how, without_fault(how, set, &copy), before);
}

static const char *instead_of(const char *path) {
    const char *told = path && strcmp(path, "/proc/cpuinfo") == 0 ? getenv("ESTUDIO_TEST_CPUINFO") : NULL;
    return told ? told : path;
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    find_next();
    return next_open(instead_of(path), flags, mode);
}

int open64(const char *, int, ...) __attribute__((alias("open")));

FILE *fopen(const char *path, const char *mode) {
    find_next();
    return next_fopen(instead_of(path), mode);
}

FILE *fopen64(const char *, const char *) __attribute__((alias("fopen")));
