#!/bin/sh
# Trains a judge for the answers of other models on made answers of SQuAD and on BEGIN, and fits it to answers that
# people rated. The judge takes more than an hour on one core that computes in bfloat16, and continues after a kill.
# BEGIN is not among the answers that the rule is fitted to, because the judge knows them.
# Run: sh trainers/recipes/judge.sh FOLDER-WITH-QA-DATA FOLDER-WITH-THE-ANSWERS OUTPUT
set -eu
aspire-guard make-answers "$1/squad_train.jsonl" handbook:train --per-record 1 --further-passages 0.08 \
    --hold-out-styles table,quoted_source,hedge_last --output "$3-made.jsonl"
aspire-guard train-judge "$3-made.jsonl" "$2/begin_train.jsonl" \
    --recipe trainers/recipes/judge.toml --output "$3-judge"
aspire-guard fit "$2/clapnq_dev.jsonl" "$2/mtrag_dev.jsonl" --evaluator "$3-judge" --target-accuracy 0.94 \
    --attribution "SQuAD (Rajpurkar et al. 2016), CC BY-SA 4.0; BEGIN (Dziri et al. 2022), CC BY 4.0 and \
CDLA-Sharing-1.0; ClapNQ with the ratings of InspectorRAGet (Rosenthal et al. 2024) and MTRAG (Katsis et al. 2025), \
Apache-2.0." --output "$3"
