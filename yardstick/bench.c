// SPDX-License-Identifier: GPL-2.0
/* Per-packet program cost with BPF_PROG_TEST_RUN, all programs interleaved.
 * usage: bench REF.o BENCH.o ROUNDS REPEAT CPU OUT.csv [NAME=katran.o | NAME=@PINNED ...]
 * A program under development joins with NAME=@/sys/fs/bpf/...: pin it after its
 * own loader gave it VIP 10.200.1.1:80 (TCP and UDP). It runs in every IPv4 case.
 * Environment: LRU=entries (default 4000000), ONLY=substring of case names,
 * WARM=warm-up packets. */
#include "lbset.h"

struct prog { const char *name; int fd; struct bpf_object *kat; int pinned; };
struct kase { const char *name; enum kind k; int wrap; __u32 flows; const char *progs; };

static const __u8 GW[6] = {0, 0, 0xde, 0xad, 0xbe, 0xaf}, LB[6] = {2, 0, 0, 0, 0, 1}, CL[6] = {2, 0, 0, 0, 0, 2};
static struct prog P[32];
static int np;

static void add(const char *n, int fd, struct bpf_object *k) { P[np++] = (struct prog){strdup(n), fd, k, 0}; }

static void verify(struct prog *p, enum kind k, const char *kn)
{
	__u8 f[256], out[512];
	struct bench_cfg c = {};
	int len = build(k, f, &c, LB, CL);
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = f, .data_size_in = len, .data_out = out, .data_size_out = sizeof out, .repeat = 1);
	ck(bpf_prog_test_run_opts(p->fd, &o));
	printf("verify %-14s %-8s ret=%u len %d->%u", p->name, kn, o.retval, len, o.data_size_out);
	int off = 14;
	if (out[12] == 8 && o.retval == 3) {
		printf(" ip_csum_ok=%d", sum16(out + 14, 20, 0) == 0xffff);
		if (out[23] == 4) { off = 34; printf(" inner_csum_ok=%d", sum16(out + 34, 20, 0) == 0xffff); }
		if (out[23] == 17 && k != UDP) { printf(" GUE"); off = 0; }
		if (off) {
			__u8 *ip = out + off; int l4 = (ip[2] << 8 | ip[3]) - 20;
			printf(" l4_csum_ok=%d", sum16(ip + 20, l4, sum16(ip + 12, 8, 0) + htons(ip[9]) + htons(l4)) == 0xffff);
		}
		printf(" dst=%d.%d.%d.%d", out[30], out[31], out[32], out[33]);
	}
	printf("\n");
}

static int has(const char *list, const char *n)
{
	size_t l = strlen(n);
	for (const char *s = list; (s = strstr(s, n)); s += l)
		if ((s == list || s[-1] == ' ') && (s[l] == 0 || s[l] == ' ')) return 1;
	return 0;
}

int main(int ac, char **av)
{
	if (ac < 7) die("args");
	int rounds = atoi(av[3]), cpu = atoi(av[5]);
	__u32 repeat = atoi(av[4]);
	FILE *csv = fopen(av[6], "w");
	cpu_set_t cs; CPU_ZERO(&cs); CPU_SET(cpu, &cs); ck(sched_setaffinity(0, sizeof cs, &cs));
	struct rlimit rl = {RLIM_INFINITY, RLIM_INFINITY}; setrlimit(RLIMIT_MEMLOCK, &rl);
	if (!getenv("BPF_VERBOSE")) libbpf_set_print(NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);

	__u32 lru = getenv("LRU") ? atoi(getenv("LRU")) : 4000000;
	const char *names[] = {"r0", "r1", "r2", "r3", "r3s", "r4"};
	struct bpf_object *ref = load_ref(av[1], lru, 0, GW), *refn = load_ref(av[1], lru, 0, GW);
	for (int i = 0; i < 6; i++) {
		char b[32];
		add(names[i], progfd(ref, names[i]), NULL);
		snprintf(b, sizeof b, "%s.new", names[i]);
		if (i >= 2) add(b, progfd(refn, names[i]), NULL);
	}
	for (int i = 7; i < ac; i++) {
		char *eq = strchr(av[i], '='); *eq = 0;
		if (eq[1] == '@') {
			int fd = bpf_obj_get(eq + 2);
			ck(fd);
			add(av[i], fd, NULL);
			P[np - 1].pinned = 1;
			continue;
		}
		struct bpf_object *k = load_katran(eq + 1, lru, cpu, GW);
		add(av[i], progfd(k, "balancer_ingress"), k);
		printf("loaded %s from %s\n", av[i], eq + 1);
	}
	struct bpf_object *b = bpf_object__open(av[2]);
	if (!b) die("open bench");
	ck(bpf_object__load(b));
	struct bench_cfg *cfg = bench_map(b);
	int jmp = mapfd(b, "jmp"), w4 = progfd(b, "wrap4"), w6 = progfd(b, "wrap6");

	for (int i = 0; i < np; i++) {
		verify(&P[i], TCP_ACK, "tcp_ack"); verify(&P[i], TCP_SYN, "tcp_syn"); verify(&P[i], UDP, "udp"); verify(&P[i], NOTVIP, "notvip");
		if (P[i].kat) verify(&P[i], V6_ACK, "v6_ack");
	}
	const char *all4 = "r0 r1 r2 r3 r3s r4 katran katran-full katran-gue", *few = "r0 r1 r2 r3 r3s r4 katran";
	struct kase K[] = {
		{"direct_tcp", TCP_ACK, 0, 1, "r0 r1"},
		{"direct_pass", NOTVIP, 0, 1, "r0 r1 r2 r3 katran katran-full"},
		{"tcp_1", TCP_ACK, 1, 1, all4},
		{"udp_1", UDP, 1, 1, few},
		{"tcp_1k", TCP_ACK, 1, 1024, few},
		{"tcp_64k", TCP_ACK, 1, 65536, few},
		{"tcp_1m", TCP_ACK, 1, 1 << 20, few},
		{"syn_1", TCP_SYN, 1, 1, "r0 katran katran-noflood"},
		{"syn_new", TCP_SYN, 1, 1 << 30, "r0 r2.new r3.new r3s.new r4 katran-new katran-noflood"},
		{"ack_new", TCP_ACK, 1, 1 << 30, "r0 katran-new katran-noflood"},
		{"v6_1", V6_ACK, 1, 1, "r0 katran"},
		{"v6_64k", V6_ACK, 1, 65536, "r0 katran"},
	};
	int nk = sizeof K / sizeof *K;
	fprintf(csv, "round,case,prog,flows,repeat,dur_ns,wall_ns,retval,k_tx,k_drop,k_pass,k_miss,k_fallback,bpf_stats\n");
	for (int r = -1; r < rounds; r++) {
		char st = '?'; int sfd = open("/proc/sys/kernel/bpf_stats_enabled", O_RDONLY);
		if (sfd >= 0) { if (read(sfd, &st, 1) != 1) st = '?'; close(sfd); }
		for (int q = 0; q < nk; q++) {
			struct kase *k = &K[(q + (r < 0 ? 0 : r) * 5) % nk];
			for (int j = 0; j < np; j++) {
				struct prog *p = &P[(j + (r < 0 ? 0 : r) * 3) % np];
				__u8 f[256], out[2048]; __u32 z = 0;
				if ((!has(k->progs, p->name) && !(p->pinned && k->k != V6_ACK && (k->wrap || k->k == NOTVIP))) || (getenv("ONLY") && !strstr(k->name, getenv("ONLY")))) continue;
				int isnew = k->flows == 1 << 30;
				__u64 keep = cfg->ctr;
				memset((char *)cfg + 16, 0, sizeof *cfg - 16);
				int len = build(k->k, f, cfg, LB, CL);
				cfg->fmask = k->flows - 1; cfg->fmul = isnew ? 1 : 0x9e3779b1;
				cfg->ctr = keep;
				int fd = !k->wrap ? p->fd : k->k == V6_ACK ? w6 : w4;
				if (k->wrap) put(jmp, &z, &p->fd);
				__u32 rep = r < 0 ? (isnew ? 5000000 : k->flows * 2 + 10000) : repeat;
				/* Katran admits at most 125k new flows/s per core to its LRU:
				 * fill a large flow set in slices, one a second */
				if (r < 0 && p->kat && k->flows == 1 << 20)
					for (int i = 0; i < 11; i++) {
						LIBBPF_OPTS(bpf_test_run_opts, s, .data_in = f, .data_size_in = len, .data_out = out, .data_size_out = sizeof out, .repeat = 105000);
						ck(bpf_prog_test_run_opts(fd, &s));
						usleep(1100000);
					}
				/* short warm-up each time, so caches hold this program's data */
				LIBBPF_OPTS(bpf_test_run_opts, w, .data_in = f, .data_size_in = len, .data_out = out, .data_size_out = sizeof out, .repeat = 20000);
				if (k->flows == 1 << 20) w.repeat = 200000;
				if (getenv("WARM")) w.repeat = atoi(getenv("WARM")); /* e.g. 150000: uses up Katran's 125k/s before measuring */
				ck(bpf_prog_test_run_opts(fd, &w));
				struct k_stats a[5] = {}, e[5] = {}; int ix[5] = {K_TX, K_DROP, K_PASS, K_LRU, K_FALLBACK};
				if (p->kat) for (int i = 0; i < 5; i++) a[i] = kstat(p->kat, ix[i]);
				LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = f, .data_size_in = len, .data_out = out, .data_size_out = sizeof out, .repeat = rep);
				double t0 = now();
				ck(bpf_prog_test_run_opts(fd, &o));
				double t1 = now();
				if (p->kat) for (int i = 0; i < 5; i++) e[i] = kstat(p->kat, ix[i]);
				fprintf(csv, "%d,%s,%s,%u,%u,%u,%.2f,%u,%llu,%llu,%llu,%llu,%llu,%c\n", r, k->name, p->name, k->flows, rep, o.duration, (t1 - t0) / rep, o.retval,
					e[0].v1 - a[0].v1, e[1].v1 - a[1].v1, e[2].v1 - a[2].v1, e[3].v2 - a[3].v2, e[4].v1 - a[4].v1, st);
			}
		}
		fflush(csv);
		fprintf(stderr, "round %d done\n", r);
	}
	fclose(csv);
	return 0;
}
