package pitaya

import "fmt"

// DeclaredMetrics lists the metrics that the library has: name, kind, labels and subsystem.
func DeclaredMetrics() (list []string) {
	for _, d := range builtinMetrics() {
		kind := [...]string{kindCounter: "counter", kindGauge: "gauge", kindSummary: "summary", kindHistogram: "histogram"}[d.Kind]
		list = append(list, fmt.Sprint(d.Name, d.Suffix, " ", kind, " ", d.Labels, " ", d.Subsystem))
	}
	return list
}
