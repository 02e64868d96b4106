package pitaya

// WithDefaults is withDefaults.
func (c Config) WithDefaults() Config { return c.withDefaults() }

// A ConfigDoc is what the reference page has of a setting besides its Setting.
type ConfigDoc struct {
	Section string
	Pitaya  string // Pitaya's default where it is another
}

// ConfigDocs returns one for each of Settings.
func ConfigDocs() []ConfigDoc {
	var docs []ConfigDoc
	for _, s := range new(Config).table() {
		for _, k := range s.keys {
			docs = append(docs, ConfigDoc{Section: s.title, Pitaya: k.pitaya})
		}
	}
	return docs
}
