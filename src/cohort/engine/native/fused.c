/* A decoding step of the models that are built like Llama, in one call. See fused.py, which compiles and calls this.

A row is a token that is read: the last one of a rollout, or, where contexts are encoded, one of theirs, a few hundred at a
time. Every row is a column: activations lie in panels of LANES columns, [panels][n][LANES], so that a number of a weight meets
a vector of rows. Weights are read as they lie in memory, once a step. Every sum is made in the same order whatever the number
of rows, and products are fused with sums where it is written and nowhere else (a compiler would choose by what stands around
them), so the numbers of a row do not depend on what else is decoded. Nor do they depend on which tokens lie in a context and which in the
row's own sequence, or on whether keys were stored as their token was drawn or when it was read later: attention goes through
tokens in their order, and a token has the same lane everywhere.

All threads of the team go through `step` together, each with its share of the rows of every weight, and meet at barriers. */

#include <immintrin.h>
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#define TILE 8    /* rows of a weight that are taken at once: with two panels, 16 of 32 registers hold sums */
#define QUERIES 8 /* queries that meet keys at once */
#define FUSED(a, b, c) _mm512_fmadd_ps(a, b, c) /* a b + c, rounded once */
#elif defined(__AVX2__) && defined(__FMA__)
#define LANES 8
#define TILE 6
#define QUERIES 4
#define FUSED(a, b, c) _mm256_fmadd_ps(a, b, c)
#else
#error "only measured with AVX2 and AVX-512"
#endif

#define LINE 16 /* numbers of a cache line */
#define MOST 16 /* queries of a unit of attention */
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

typedef int64_t integer;
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* A linear layer [n, k], with a bias [n] and a low-rank adapter, up [n, rank] down [rank, k] scale, where there are any. */
typedef struct {
    const float *weight, *bias, *down, *up;
    integer n, k, rank;
    float scale;
} Product;

/* RMSNorm over n numbers, as `Norm` in plain.py: a weight times sqrt(n), or null; eps times n. */
typedef struct {
    const float *weight;
    float eps;
} Norm;

typedef struct {
    Norm before, after, q_norm, k_norm; /* of queries and keys: [width], or none */
    Product q, k, v, o, gate, up, down;
    integer window; /* tokens that a token sees, itself included; 0: all */
} Layer;

typedef struct {
    const float *embedding; /* [vocabulary, hidden] */
    const float *cos, *sin; /* [positions, width] */
    const Layer *layers;
    Norm norm;
    Product head;
    integer count, hidden, heads, key_heads, width, inner; /* count: of layers; inner: width of the feed-forward part */
    float scale;                                           /* of queries */
} Model;

/* Of a layer: tokens of sequences of their own, keys [sequences, K, width, room], values [sequences, K, deep, width], from place
   `begin_of` on; tokens of contexts, shared_keys [contexts, K, width, shared_room], shared_values [contexts, K, shared_deep, width]. */
typedef struct {
    float *keys, *values;
    const float *shared_keys, *shared_values;
} Cache;

typedef struct {
    /* Of each row: its token; its context; its own sequence, and the tokens of that up to it, itself included. */
    const integer *token, *home, *sequence, *drawn;
    const integer *lengths; /* [contexts] tokens */
    const float *inputs;    /* [rows, hidden] what is read instead of the tokens, or null */
    const Cache *caches;
    float *logits;  /* [rows, vocabulary], or null: keys and values are all that is wanted */
    float *space;   /* see `space_of` */
    integer *order; /* [2 rows + contexts + 2] */
    integer rows, contexts, room, deep, shared_room, shared_deep;
} State;

/* products ----------------------------------------------------------------------------------------------------------- */

enum { SET, ADD, GATE, TIMES, LOGITS };

/* The i-th vector from a place on. */
INLINE vec at(const float *x, integer i) { return *(const vec *)(x + i * LANES); }

INLINE vec all(float x) { return x - (vec){0}; }

INLINE vec exponential(vec x) {
    /* 2^n e^r with |r| <= ln 2 / 2, by the polynomial of the Cephes library: within 2 units in the last place, 0 below -87. */
    const ivec there = x > all(-87.0f);
    x = (vec)((ivec)x & there);
    const ivec large = x > all(88.0f);
    x = (vec)(((ivec)x & ~large) | ((ivec)all(88.0f) & large));
    const vec magic = all(12582912.0f); /* 1.5 2^23: adding it rounds to an integer, in the lowest bits */
    const vec shifted = FUSED(x, all(1.44269504f), magic);
    const vec n = shifted - magic;
    const vec r = FUSED(n, all(2.12194440e-4f), FUSED(n, all(-0.693359375f), x));
    vec y = FUSED(r, all(1.9875691500e-4f), all(1.3981999507e-3f));
    y = FUSED(y, r, all(8.3334519073e-3f));
    y = FUSED(y, r, all(4.1665795894e-2f));
    y = FUSED(y, r, all(1.6666665459e-1f));
    y = FUSED(y, r, all(5.0000001201e-1f));
    y = FUSED(y, r * r, r) + 1.0f;
    const ivec power = ((ivec)shifted - (ivec)magic + 127) << 23;
    return (vec)((ivec)(y * (vec)power) & there);
}

/* sums[r][p] += weight[r, :] x[p], over k. */
INLINE void sum(const int rows, const int panels, vec sums[TILE][2], const float *weight, integer k, const float *x) {
    for (integer start = 0; start < k; start += LINE) {
        const integer stop = start + LINE < k ? start + LINE : k;
        UNROLL for (int r = 0; r < rows; r++) __builtin_prefetch(weight + (r + rows) * k + start);
        for (integer i = start; i < stop; i++) {
            vec column[2];
            UNROLL for (int p = 0; p < panels; p++) column[p] = at(x, p * k + i);
            UNROLL for (int r = 0; r < rows; r++) {
                const vec number = all(weight[r * k + i]);
                UNROLL for (int p = 0; p < panels; p++) sums[r][p] = FUSED(number, column[p], sums[r][p]);
            }
        }
    }
}

/* Some rows of a product, for one or two panels of x; low: [panels][rank][LANES], what the adapter's first half gives. */
INLINE void tile(
    const int rows, const int panels, const int what, const Product *p, integer row, const float *x, const float *low,
    float *out, integer left
) {
    vec sums[TILE][2];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int i = 0; i < panels; i++) sums[r][i] = all(p->bias ? p->bias[row + r] : 0.0f);
    sum(rows, panels, sums, p->weight + row * p->k, p->k, x);
    if (p->rank) sum(rows, panels, sums, p->up + row * p->rank, p->rank, low);
    if (what == LOGITS) {
        /* Turned: out [rows of the step, n], of which `left` are left. */
        float turned[TILE][2][LANES];
        UNROLL for (int r = 0; r < rows; r++)
            UNROLL for (int i = 0; i < panels; i++) *(vec *)turned[r][i] = sums[r][i];
        for (int column = 0; column < panels * LANES && column < left; column++)
            UNROLL for (int r = 0; r < rows; r++)
                out[column * p->n + row + r] = turned[r][column / LANES][column % LANES];
        return;
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int i = 0; i < panels; i++) {
            vec *place = (vec *)(out + (i * p->n + row + r) * LANES);
            const vec found = sums[r][i];
            if (what == SET) *place = found;
            if (what == ADD) *place += found;
            if (what == GATE) *place = found / (1.0f + exponential(-found)); /* SiLU */
            if (what == TIMES) *place *= found;
        }
}

INLINE void tiles(
    const int rows, const int what, const Product *p, integer row, integer panels, const float *x, const float *low,
    float *out, integer left
) {
    const integer wide = what == LOGITS ? p->n : p->n * LANES, step = what == LOGITS ? LANES * wide : wide;
    integer i = 0;
    for (; i + 2 <= panels; i += 2)
        tile(rows, 2, what, p, row, x + i * p->k * LANES, low + i * p->rank * LANES, out + i * step, left - i * LANES);
    if (i < panels)
        tile(rows, 1, what, p, row, x + i * p->k * LANES, low + i * p->rank * LANES, out + i * step, left - i * LANES);
}

INLINE void rows_of(
    const int what, const Product *p, integer from, integer to, integer panels, const float *x, const float *low, float *out,
    integer left
) {
    integer row = from;
    for (; row + TILE <= to; row += TILE) tiles(TILE, what, p, row, panels, x, low, out, left);
    for (; row < to; row++) tiles(1, what, p, row, panels, x, low, out, left);
}

/* This thread's rows of a product: out [panels][n][LANES] of x [panels][k][LANES]; low: room for [panels][rank][LANES]. */
INLINE void product(const int what, const Product *p, integer panels, const float *x, float *low, float *out, integer left) {
    const integer team = omp_get_num_threads(), me = omp_get_thread_num();
    const integer whole = (p->n + TILE - 1) / TILE; /* tiles */
    const integer from = whole * me / team * TILE, to = whole * (me + 1) / team * TILE;
    if (p->rank) {
        /* Small, and every thread needs all of it. */
        const Product first = {.weight = p->down, .n = p->rank, .k = p->k};
        rows_of(SET, &first, 0, p->rank, panels, x, low, low, 0);
        for (integer i = 0; i < panels * p->rank; i++) *(vec *)(low + i * LANES) *= p->scale;
    }
    rows_of(what, p, from, to < p->n ? to : p->n, panels, x, low, out, left);
}

/* RMSNorm: y [panels][n][LANES] of x. */
static void normalise(const float *x, Norm norm, integer n, integer panels, float *y) {
    for (integer p = 0; p < panels; p++, x += n * LANES, y += n * LANES) {
        vec squares[4] = {{0}, {0}, {0}, {0}};
        integer i = 0;
        for (; i + 4 <= n; i += 4)
            UNROLL for (int j = 0; j < 4; j++) squares[j] = FUSED(at(x, i + j), at(x, i + j), squares[j]);
        for (; i < n; i++) squares[0] += at(x, i) * at(x, i);
        vec factor = ((squares[0] + squares[1]) + (squares[2] + squares[3])) + norm.eps;
        for (int lane = 0; lane < LANES; lane++) factor[lane] = 1.0f / sqrtf(factor[lane]);
        for (i = 0; i < n; i++) *(vec *)(y + i * LANES) = at(x, i) * factor * norm.weight[i];
    }
}

/* attention ---------------------------------------------------------------------------------------------------------- */

/* scores[i, t] = q[i, :] keys[:, t] for tokens from a multiple of LANES to at least `to`; keys have room for that. */
INLINE void meet(
    const int count, const int vectors, const float *q, integer width, const float *keys, integer room, float *scores,
    integer wide
) {
    vec sums[QUERIES][2];
    UNROLL for (int i = 0; i < count; i++)
        UNROLL for (int j = 0; j < vectors; j++) sums[i][j] = (vec){0};
    for (integer d = 0; d < width; d++) {
        vec key[2];
        UNROLL for (int j = 0; j < vectors; j++) key[j] = *(const vec *)(keys + d * room + j * LANES);
        UNROLL for (int i = 0; i < count; i++)
            UNROLL for (int j = 0; j < vectors; j++) sums[i][j] = FUSED(all(q[i * width + d]), key[j], sums[i][j]);
    }
    UNROLL for (int i = 0; i < count; i++)
        UNROLL for (int j = 0; j < vectors; j++) *(vec *)(scores + i * wide + j * LANES) = sums[i][j];
}

INLINE void meet_all(
    const int count, const float *q, integer width, const float *keys, integer room, integer from, integer to, float *scores,
    integer wide
) {
    integer t = from;
    for (; t + LANES < to; t += 2 * LANES) meet(count, 2, q, width, keys + t, room, scores + t, wide);
    if (t < to) meet(count, 1, q, width, keys + t, room, scores + t, wide);
}

/* out[i, :] += sum over tokens of weights[i, t] values[t, :]. */
INLINE void gather(
    const int count, const int vectors, const float *weights, integer wide, const float *values, integer width, integer from,
    integer to, float *out
) {
    vec sums[QUERIES][2];
    UNROLL for (int i = 0; i < count; i++)
        UNROLL for (int j = 0; j < vectors; j++) sums[i][j] = *(const vec *)(out + i * width + j * LANES);
    for (integer t = from; t < to; t++) {
        vec value[2];
        UNROLL for (int j = 0; j < vectors; j++) value[j] = *(const vec *)(values + t * width + j * LANES);
        UNROLL for (int i = 0; i < count; i++)
            UNROLL for (int j = 0; j < vectors; j++) sums[i][j] = FUSED(all(weights[i * wide + t]), value[j], sums[i][j]);
    }
    UNROLL for (int i = 0; i < count; i++)
        UNROLL for (int j = 0; j < vectors; j++) *(vec *)(out + i * width + j * LANES) = sums[i][j];
}

INLINE void gather_all(
    const int count, const float *weights, integer wide, const float *values, integer width, integer from, integer to,
    float *out
) {
    integer d = 0;
    for (; d + 2 * LANES <= width; d += 2 * LANES) gather(count, 2, weights, wide, values + d, width, from, to, out + d);
    for (; d + LANES <= width; d += LANES) gather(count, 1, weights, wide, values + d, width, from, to, out + d);
    for (; d < width; d++)
        for (int i = 0; i < count; i++)
            for (integer t = from; t < to; t++) out[i * width + d] += weights[i * wide + t] * values[t * width + d];
}

/* Of `count` queries, the tokens from `from` to `to`, in both directions. */
static void score(
    integer count, const float *q, integer width, const float *keys, integer room, integer from, integer to, float *scores,
    integer wide
) {
    integer i = 0;
    from -= from % LANES;
    for (; i + QUERIES <= count; i += QUERIES)
        meet_all(QUERIES, q + i * width, width, keys, room, from, to, scores + i * wide, wide);
    for (; i + 2 <= count; i += 2) meet_all(2, q + i * width, width, keys, room, from, to, scores + i * wide, wide);
    if (i < count) meet_all(1, q + i * width, width, keys, room, from, to, scores + i * wide, wide);
}

static void collect(
    integer count, const float *weights, integer wide, const float *values, integer width, integer from, integer to, float *out
) {
    integer i = 0;
    for (; i + QUERIES <= count; i += QUERIES)
        gather_all(QUERIES, weights + i * wide, wide, values, width, from, to, out + i * width);
    for (; i + 2 <= count; i += 2) gather_all(2, weights + i * wide, wide, values, width, from, to, out + i * width);
    if (i < count) gather_all(1, weights + i * wide, wide, values, width, from, to, out + i * width);
}

/* Before softmax: scores that lie in the vectors of those from `from` to `to`, but are not among them, become -inf. */
INLINE vec hide(float *scores, integer from, integer to, vec most) {
    const integer first = from - from % LANES, last = (to + LANES - 1) / LANES * LANES;
    if (from >= to) return most;
    for (integer t = first; t < from; t++) scores[t] = -INFINITY;
    for (integer t = to; t < last; t++) scores[t] = -INFINITY;
    for (integer t = first; t < last; t += LANES) {
        const vec each = *(vec *)(scores + t);
        const ivec more = each > most;
        most = (vec)(((ivec)each & more) | ((ivec)most & ~more));
    }
    return most;
}

/* Scores become e^(score - most); their sum is added to. */
INLINE vec weigh(float *scores, integer from, integer to, float most, vec total) {
    if (from >= to) return total;
    for (integer t = from - from % LANES; t < to; t += LANES) {
        const vec weight = exponential(*(vec *)(scores + t) - most);
        *(vec *)(scores + t) = weight;
        total += weight;
    }
    return total;
}

/* Normalise (where there is a norm) and rotate a head [width], in place. */
static void turn(float *x, integer width, Norm norm, const float *cos, const float *sin, float scale) {
    const integer half = width / 2;
    if (norm.weight) {
        float squares = 0.0f;
        for (integer d = 0; d < width; d++) squares += x[d] * x[d];
        const float factor = 1.0f / sqrtf(squares + norm.eps);
        for (integer d = 0; d < width; d++) x[d] *= factor * norm.weight[d];
    }
    for (integer d = 0; d < half; d++) {
        const float low = x[d], high = x[d + half];
        x[d] = (low * cos[d] - high * sin[d]) * scale;
        x[d + half] = (high * cos[d + half] + low * sin[d + half]) * scale;
    }
}

static integer later(integer a, integer b) { return a > b ? a : b; }

/* Where a row's own tokens begin in the room for them: so that a token of a sequence has the same lane there as in a context. */
INLINE integer begin_of(const State *s, integer row) { return s->lengths[s->home[row]] % LINE; }

/* A row's new key and value for one key head. */
static void store(
    const Model *m, const Layer *layer, const State *s, const Cache *cache, integer head, integer row, const float *keys,
    const float *values
) {
    const integer width = m->width, now = s->lengths[s->home[row]] + s->drawn[row] - 1;
    const integer place = begin_of(s, row) + s->drawn[row] - 1;
    const integer from = (row / LANES * m->key_heads + head) * width, lane = row % LANES;
    float *own_keys = cache->keys + (s->sequence[row] * m->key_heads + head) * width * s->room + place;
    float *own_values = cache->values + ((s->sequence[row] * m->key_heads + head) * s->deep + place) * width;
    float key[width];
    for (integer d = 0; d < width; d++) key[d] = keys[(from + d) * LANES + lane];
    turn(key, width, layer->k_norm, m->cos + now * width, m->sin + now * width, 1.0f);
    for (integer d = 0; d < width; d++) own_keys[d * s->room] = key[d];
    for (integer d = 0; d < width; d++) own_values[d] = values[(from + d) * LANES + lane];
}

/* Weights from `first` to `last` that lie outside the vectors of those from `from` to `to` become 0: other queries see them. */
INLINE void clear(float *weights, integer from, integer to, integer first, integer last) {
    const integer begin = from < to ? from - from % LANES : last, end = (to + LANES - 1) / LANES * LANES;
    for (integer t = first; t < begin && t < last; t++) weights[t] = 0.0f;
    for (integer t = later(end, first); from < to && t < last; t++) weights[t] = 0.0f;
}

/* One key head of some rows of one context: `seen` is what they attend to. */
static void attend(
    const Model *m, const Layer *layer, const State *s, const Cache *cache, integer head, const integer *rows, integer count,
    const float *queries, float *seen, float *space
) {
    const integer width = m->width, repeats = m->heads / m->key_heads, all_queries = count * repeats;
    const integer wide = s->shared_room + s->room, home = s->home[rows[0]], length = s->lengths[home];
    float *q = space, *out = q + all_queries * width, *scores = out + all_queries * width;
    float share[all_queries];
    integer start[count]; /* the first token that each row sees, counted from the first of the context */
    integer first = length;

    memset(out, 0, sizeof(float) * all_queries * width);
    for (integer i = 0; i < count; i++) {
        const integer row = rows[i], now = length + s->drawn[row] - 1;
        const integer from = (row / LANES * m->heads + head * repeats) * width;
        start[i] = layer->window ? later(0, now - layer->window + 1) : 0;
        first = start[i] < first ? start[i] : first;
        for (integer d = 0; d < repeats * width; d++)
            q[i * repeats * width + d] = queries[(from + d) * LANES + row % LANES];
        for (integer r = 0; r < repeats; r++)
            turn(
                q + (i * repeats + r) * width, width, layer->q_norm, m->cos + now * width, m->sin + now * width, m->scale
            );
    }
    if (first < length) {
        const float *keys = cache->shared_keys + (home * m->key_heads + head) * width * s->shared_room;
        score(all_queries, q, width, keys, s->shared_room, first, length, scores, wide);
    }
    /* Rows of one sequence, which meet its keys together: where they end among the rows, and the tokens they see. */
    const integer begin = length % LINE;
    integer next[count], from[count], to[count];
    for (integer i = 0; i < count; i = next[i]) {
        const integer sequence = s->sequence[rows[i]];
        from[i] = s->room, to[i] = 0;
        for (next[i] = i; next[i] < count && s->sequence[rows[next[i]]] == sequence; next[i]++) {
            const integer own_start = begin + later(0, start[next[i]] - length);
            from[i] = own_start < from[i] ? own_start : from[i];
            to[i] = later(to[i], begin + s->drawn[rows[next[i]]]);
        }
        const float *keys = cache->keys + (sequence * m->key_heads + head) * width * s->room;
        const integer one = i * repeats, last = next[i] * repeats;
        score(last - one, q + one * width, width, keys, s->room, from[i], to[i], scores + one * wide + s->shared_room, wide);
        for (integer query = one; query < last; query++) {
            const integer row = query / repeats;
            const integer own_start = begin + later(0, start[row] - length), own = begin + s->drawn[rows[row]];
            float *far = scores + query * wide, *near = far + s->shared_room;
            const vec most = hide(near, own_start, own, hide(far, start[row], length, all(-INFINITY)));
            float top = most[0], sum = 0.0f;
            for (int lane = 1; lane < LANES; lane++) top = most[lane] > top ? most[lane] : top;
            const vec total = weigh(near, own_start, own, top, weigh(far, start[row], length, top, (vec){0}));
            for (int lane = 0; lane < LANES; lane++) sum += total[lane];
            share[query] = 1.0f / sum;
            clear(far, start[row], length, first, length);
            clear(near, own_start, own, from[i], to[i]);
        }
    }
    if (first < length) {
        const float *values = cache->shared_values + (home * m->key_heads + head) * width * s->shared_deep;
        collect(all_queries, scores, wide, values, width, first, length, out);
    }
    for (integer i = 0; i < count; i = next[i]) {
        const float *values = cache->values + (s->sequence[rows[i]] * m->key_heads + head) * s->deep * width;
        const integer one = i * repeats;
        collect(
            (next[i] - i) * repeats, scores + one * wide + s->shared_room, wide, values, width, from[i], to[i],
            out + one * width
        );
    }
    for (integer i = 0; i < count; i++) {
        const integer row = rows[i], to = (row / LANES * m->heads + head * repeats) * width;
        for (integer d = 0; d < repeats * width; d++)
            seen[(to + d) * LANES + row % LANES] = out[i * repeats * width + d] * share[i * repeats + d / width];
    }
}

/* the step ----------------------------------------------------------------------------------------------------------- */

static integer panels_of(integer rows) { return (rows + LANES - 1) / LANES; }

static integer rank_of(const Model *m) {
    integer most = m->head.rank;
    for (integer i = 0; i < m->count; i++) {
        const Layer *l = m->layers + i;
        const Product *each[] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
        for (int j = 0; j < 7; j++) most = later(most, each[j]->rank);
    }
    return most;
}

/* Numbers that all threads share, and that each has for itself. */
static integer shared_space(const Model *m, const State *s) {
    const integer columns = panels_of(s->rows) * LANES;
    return columns * (m->hidden + (2 * m->heads + 2 * m->key_heads) * m->width + m->inner);
}

static integer own_space(const Model *m, const State *s) {
    const integer columns = panels_of(s->rows) * LANES, repeats = m->heads / m->key_heads;
    const integer queries = later(MOST, repeats);
    const integer attention = queries * (2 * m->width + s->shared_room + s->room);
    return (later(columns * (m->hidden + rank_of(m)), attention) + LINE) / LINE * LINE;
}

/* Numbers of `space` that a step takes. */
integer space_of(const Model *m, const State *s, integer threads) { return shared_space(m, s) + threads * own_space(m, s); }

/* Logits after the token of every row; its keys and values are stored on the way. */
void step(const Model *m, const State *s, integer threads) {
    const integer panels = panels_of(s->rows), columns = panels * LANES, repeats = m->heads / m->key_heads;
    const integer rows = s->rows, together = later(1, MOST / repeats);
    float *x = s->space, *q = x + columns * m->hidden, *k = q + columns * m->heads * m->width;
    float *v = k + columns * m->key_heads * m->width, *seen = v + columns * m->key_heads * m->width;
    float *inner = seen + columns * m->heads * m->width, *spaces = inner + columns * m->inner;
    const integer own = own_space(m, s);

    /* Rows by context, and units of a few rows of one context: where each begins, and after them where the last ends. */
    integer *order = s->order, *unit = order + rows, *at = unit + rows + 1, units = 0;
    memset(at, 0, sizeof(integer) * (s->contexts + 1));
    for (integer row = 0; row < rows; row++) at[s->home[row] + 1]++;
    for (integer i = 0; i < s->contexts; i++) {
        for (integer row = at[i]; row < at[i] + at[i + 1]; row += together) unit[units++] = row;
        at[i + 1] += at[i];
    }
    unit[units] = rows;
    for (integer row = 0; row < rows; row++) order[at[s->home[row]]++] = row;
    memset(seen, 0, sizeof(float) * columns * m->heads * m->width); /* of columns that are no rows */

#pragma omp parallel num_threads(threads)
    {
        float *space = spaces + omp_get_thread_num() * own, *low = space + columns * m->hidden;
#pragma omp for
        for (integer part = 0; part < (m->hidden + LINE - 1) / LINE; part++)
            for (integer column = 0; column < columns; column++)
                for (integer i = part * LINE; i < m->hidden && i < (part + 1) * LINE; i++)
                    x[(column / LANES * m->hidden + i) * LANES + column % LANES] =
                        column >= rows ? 0.0f
                        : s->inputs    ? s->inputs[column * m->hidden + i]
                                       : m->embedding[s->token[column] * m->hidden + i];
        for (integer i = 0; i < m->count; i++) {
            const Layer *l = m->layers + i;
            const int more = s->logits || i + 1 < m->count;
            normalise(x, l->before, m->hidden, panels, space);
            if (more) product(SET, &l->q, panels, space, low, q, 0);
            product(SET, &l->k, panels, space, low, k, 0);
            product(SET, &l->v, panels, space, low, v, 0);
#pragma omp barrier
#pragma omp for
            for (integer each = 0; each < rows * m->key_heads; each++)
                store(m, l, s, s->caches + i, each % m->key_heads, each / m->key_heads, k, v);
            if (!more) break;
#pragma omp for schedule(dynamic)
            for (integer each = 0; each < units * m->key_heads; each++) {
                const integer which = each / m->key_heads, count = unit[which + 1] - unit[which];
                attend(m, l, s, s->caches + i, each % m->key_heads, order + unit[which], count, q, seen, space);
            }
            product(ADD, &l->o, panels, seen, low, x, 0);
#pragma omp barrier
            normalise(x, l->after, m->hidden, panels, space);
            product(GATE, &l->gate, panels, space, low, inner, 0);
            product(TIMES, &l->up, panels, space, low, inner, 0);
#pragma omp barrier
            product(ADD, &l->down, panels, inner, low, x, 0);
#pragma omp barrier
        }
        if (s->logits) {
            normalise(x, m->norm, m->hidden, panels, space);
            product(LOGITS, &m->head, panels, space, low, s->logits, rows);
        }
    }
}
