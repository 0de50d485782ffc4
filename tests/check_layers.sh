#!/bin/sh
# The fences of the house: which room may open which door. Prints each arrow that points elsewhere and fails.
set -u
cd "$(dirname "$0")/.." || exit 1
bad=$(while read -r room doors; do
    find "$room" -name '*.[ch]' | while read -r f; do
        sed -n 's/^# *include *"\(.*\)"/\1/p' "$f" | while read -r h; do
            case $h in base/*) ;; *) [ -f "${f%/*}/$h" ] && continue ;; esac
            set -f; for d in $doors; do case $h in $d) continue 2 ;; esac; done; set +f
            echo "$f: may not include \"$h\""
        done
    done
done <<'ROOMS'
core/base     base/*
core/kernels  base/* kernels.h grid.h linalg.h
core/format   base/* format.h
core/text     base/* format.h text.h
core/grammar  base/* format.h text.h grammar.h
core/model    base/* format.h kernels.h grid.h model.h matrices.h sketch.h lora.h kv_cache.h cost.h
core/engine   base/* text.h grammar.h model.h lora.h cost.h kv_cache.h kernels.h engine.h
adapters      base/* format.h text.h bundle.h yaml_text.h kernels.h model.h matrices.h sketch.h lora.h adapters.h effect.h fingerprint.h registry.h sources.h state.h rank_tools.h linalg.h
server        base/* format.h text.h grammar.h kernels.h kv_cache.h model.h lora.h cost.h engine.h sketch.h adapters.h bundle.h yaml_text.h effect.h fingerprint.h registry.h sources.h state.h rank_tools.h
ROOMS
# A foreign header has its own doors: header, then the files that may see it.
while read -r header files; do
    grep -rlE "^# *include *<($header)>" core adapters server include | while read -r f; do
        set -f; for p in $files; do case $f in $p) continue 2 ;; esac; done; set +f
        echo "$f: may not include <$header>"
    done
done <<'FOREIGN'
microhttpd\.h            server/http*.c
uv\.h                    server/*
cyaml/cyaml\.h           adapters/yaml_text.c server/conf_yaml.c adapters/bundle.c server/tenant_file.c
curl/curl\.h             server/cmd_*.c server/client.c adapters/fetch*.c
cblas\.h                 core/kernels/gemm_blas.c core/kernels/svd_blas.c
sqlite3\.h              adapters/state.c adapters/state_file.c server/response_store.c server/tenant_store.c
xxhash\.h               core/model/packed_file.c
textcat\.h              server/language.c
immintrin\.h|x86intrin\.h core/kernels/*_avx2.c core/kernels/*_avx2.h core/kernels/*_avx512.c core/kernels/*_avx512.h
arm_neon\.h              core/kernels/*_neon.c core/kernels/*_neon.h
jansson\.h               core/format/* core/text/* core/grammar/* adapters/* server/*
pcre2\.h                 core/text/* adapters/*
utf8proc\.h              core/text/*
gnutls/crypto\.h         core/model/digest.c adapters/* server/*
FOREIGN
# LAPACK's routines have no header of their own: their names stand in one file.
grep -rlE '\<[sd](geqrf|orgqr|gesdd)_\>' core adapters server include | grep -vxF core/kernels/svd_blas.c |
    sed 's/$/: may not call LAPACK/'
# File names are unique in the tree, but for each room's README.
find core adapters server include \( -name '*.c' -o -name '*.h' \) | sed 's|.*/||' | sort | uniq -d |
    grep -vxF "$(find include -name '*.h' | sed 's|.*/||')" | sed 's/$/: two files of this name/'
)
[ -z "$bad" ] || { echo "$bad"; exit 1; }
