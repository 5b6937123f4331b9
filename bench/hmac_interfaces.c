/* Which libcrypto interface should sign and verify tickets?
 *
 * Times HMAC-SHA-256 of one ticket body (33 + 5 bytes, principal "alice") through each of them, every one with the key
 * prepared once. All must give the same tag. `make bench-hmac` builds and runs it; docs/decisions/0001 draws the conclusion.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 200000, REPEATS = 15, BODY_BYTES = 38 };

static unsigned char key[64] = "0123456789abcdef0123456789abcdef";
static unsigned char body[BODY_BYTES];

static SHA256_CTX sha_inner, sha_outer;
static EVP_MD_CTX *evp_inner, *evp_outer, *evp_work;
static HMAC_CTX *hmac_ctx;
static EVP_MAC_CTX *mac_ctx, *mac_keyed;

static void prepare(void) {
    unsigned char ipad[64], opad[64];
    for (int i = 0; i < 64; i++) {
        ipad[i] = key[i] ^ 0x36;
        opad[i] = key[i] ^ 0x5c;
    }
    SHA256_Init(&sha_inner);
    SHA256_Update(&sha_inner, ipad, 64);
    SHA256_Init(&sha_outer);
    SHA256_Update(&sha_outer, opad, 64);

    evp_inner = EVP_MD_CTX_new();
    evp_outer = EVP_MD_CTX_new();
    evp_work = EVP_MD_CTX_new();
    EVP_MD *md = EVP_MD_fetch(NULL, "SHA256", NULL);
    EVP_DigestInit_ex(evp_inner, md, NULL);
    EVP_DigestUpdate(evp_inner, ipad, 64);
    EVP_DigestInit_ex(evp_outer, md, NULL);
    EVP_DigestUpdate(evp_outer, opad, 64);

    hmac_ctx = HMAC_CTX_new();
    HMAC_Init_ex(hmac_ctx, key, 32, md, NULL);

    EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string("digest", "SHA256", 0), OSSL_PARAM_construct_end()};
    mac_ctx = EVP_MAC_CTX_new(mac);
    EVP_MAC_init(mac_ctx, key, 32, params);
    mac_keyed = EVP_MAC_CTX_dup(mac_ctx);
}

static void sha256_midstate(unsigned char *tag) {
    SHA256_CTX work = sha_inner;
    SHA256_Update(&work, body, BODY_BYTES);
    SHA256_Final(tag, &work);
    work = sha_outer;
    SHA256_Update(&work, tag, 32);
    SHA256_Final(tag, &work);
}

static void evp_md_midstate(unsigned char *tag) {
    EVP_MD_CTX_copy_ex(evp_work, evp_inner);
    EVP_DigestUpdate(evp_work, body, BODY_BYTES);
    EVP_DigestFinal_ex(evp_work, tag, NULL);
    EVP_MD_CTX_copy_ex(evp_work, evp_outer);
    EVP_DigestUpdate(evp_work, tag, 32);
    EVP_DigestFinal_ex(evp_work, tag, NULL);
}

static void hmac_reinit(unsigned char *tag) {
    unsigned int size;
    HMAC_Init_ex(hmac_ctx, NULL, 0, NULL, NULL);
    HMAC_Update(hmac_ctx, body, BODY_BYTES);
    HMAC_Final(hmac_ctx, tag, &size);
}

static void evp_mac_reinit(unsigned char *tag) {
    size_t size;
    EVP_MAC_init(mac_ctx, NULL, 0, NULL);
    EVP_MAC_update(mac_ctx, body, BODY_BYTES);
    EVP_MAC_final(mac_ctx, tag, &size, 32);
}

static void evp_mac_dup(unsigned char *tag) {
    size_t size;
    EVP_MAC_CTX *work = EVP_MAC_CTX_dup(mac_keyed);
    EVP_MAC_update(work, body, BODY_BYTES);
    EVP_MAC_final(work, tag, &size, 32);
    EVP_MAC_CTX_free(work);
}

static void one_shot(unsigned char *tag) {
    unsigned int size;
    HMAC(EVP_sha256(), key, 32, body, BODY_BYTES, tag, &size);
}

static const struct {
    const char *name;
    void (*sign)(unsigned char *tag);
} interfaces[] = {
    {"SHA256_CTX, copied midstates (deprecated)", sha256_midstate},
    {"EVP_MD_CTX_copy_ex of midstates", evp_md_midstate},
    {"HMAC_CTX re-initialised (deprecated)", hmac_reinit},
    {"EVP_MAC re-initialised", evp_mac_reinit},
    {"EVP_MAC_CTX_dup", evp_mac_dup},
    {"HMAC() one-shot", one_shot},
};
enum { INTERFACES = sizeof interfaces / sizeof interfaces[0] };

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(void) {
    unsigned char expected[32], tag[32];
    double ns[INTERFACES][REPEATS];
    prepare();
    sha256_midstate(expected);
    for (int repeat = 0; repeat < REPEATS; repeat++)
        for (int i = 0; i < INTERFACES; i++) { /* interleaved: the machine's mood strikes all alike */
            double start = now_ns();
            for (int n = 0; n < ROUNDS; n++) {
                body[8] = (unsigned char)n;
                interfaces[i].sign(tag);
            }
            ns[i][repeat] = (now_ns() - start) / ROUNDS;
            body[8] = 0;
            interfaces[i].sign(tag);
            if (memcmp(tag, expected, 32)) {
                fprintf(stderr, "%s: wrong tag\n", interfaces[i].name);
                return 1;
            }
        }
    printf("%s\n%-44s %8s %8s\n", OpenSSL_version(OPENSSL_VERSION), "HMAC-SHA-256 of 38 bytes", "ns", "ratio");
    double first = 0;
    for (int i = 0; i < INTERFACES; i++) {
        qsort(ns[i], REPEATS, sizeof(double), ascending);
        double median = ns[i][REPEATS / 2];
        if (i == 0) first = median;
        printf("%-44s %8.0f %8.2f\n", interfaces[i].name, median, median / first);
    }
    return 0;
}
