// Command karpenter-crds prints the definitions of Karpenter's kinds, one JSON object a line: AWS's, with the rules
// by which an API server of EKS would judge a manifest, and the node class of kwok, the provider without a cloud.
package main

import (
	"encoding/json"
	"log"
	"os"

	aws "github.com/aws/karpenter-provider-aws/pkg/apis"
	kwok "sigs.k8s.io/karpenter/kwok/apis"
)

func main() {
	lines := json.NewEncoder(os.Stdout)
	for _, definition := range append(aws.CRDs, kwok.CRDs...) {
		if err := lines.Encode(definition); err != nil {
			log.Fatal(err)
		}
	}
}
