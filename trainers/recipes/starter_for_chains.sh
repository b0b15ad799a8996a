#!/bin/sh
# Makes the starter for the answers of any chain again: the starter's adapters, fitted to answers that people rated.
# Run: sh trainers/recipes/starter_for_chains.sh FOLDER-WITH-THE-ANSWERS OUTPUT
set -eu
aspire-guard fit "$1/clapnq_dev.jsonl" "$1/mtrag_dev.jsonl" "$1/begin_train.jsonl" \
    --evaluator aspire_guard/evaluators/starter \
    --limit 400 --calibrate-on clapnq_dev,mtrag_dev --target-accuracy 0.94 \
    --attribution "ClapNQ with the ratings of InspectorRAGet (Rosenthal et al. 2024) and MTRAG (Katsis et al. 2025), \
Apache-2.0; BEGIN (Dziri et al. 2022), CC BY 4.0 and CDLA-Sharing-1.0. The adapters are those of the starter." \
    --signals "$2-signals.jsonl" --output "$2"
python trainers/recipes/refusal_probe.py "$2"
