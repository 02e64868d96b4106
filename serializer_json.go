package pitaya

import (
	"bytes"
	"encoding/json"
	"io"
	"sync"
)

// JSON is the [Serializer] named "json". It follows the rules of [encoding/json], with HTML characters escaped.
type JSON struct{}

// Name returns "json".
func (JSON) Name() string { return "json" }

// Marshal is [json.Marshal].
func (JSON) Marshal(v any) ([]byte, error) { return json.Marshal(v) }

// Unmarshal is [json.Unmarshal], but that with data behind a value, which is an error, the value may have been stored. Empty
// data is an error.
func (JSON) Unmarshal(data []byte, v any) error {
	if len(data) > maxJSONDecoder {
		return json.Unmarshal(data, v)
	}
	d := jsonDecoders.Get().(*jsonDecoder)
	taken, err := d.decode(data, v)
	if err == nil && taken == len(data) {
		jsonDecoders.Put(d)
		return nil
	}
	if taken == 0 || len(bytes.Trim(data[taken:], " \t\r\n")) > 0 {
		return json.Unmarshal(data, v) // no value, or more than one, which it says with its own words
	}
	return err
}

// maxJSONDecoder is how long a text may be whose decoder is kept, in bytes. A json.Decoder needs more time for each byte
// than json.Unmarshal does, and less for each call; at a kilobyte they are even.
const maxJSONDecoder = 512

// A jsonDecoder decodes one text after the other. [json.Unmarshal] makes a decoder of a hundred bytes and more for each
// call, a sixth of what a small request takes.
type jsonDecoder struct {
	json *json.Decoder
	text []byte // what it has not read yet
}

// jsonDecoders have nothing of a text left, in their buffers neither.
var jsonDecoders = sync.Pool{New: func() any {
	d := new(jsonDecoder)
	d.json = json.NewDecoder(d)
	return d
}}

// decode decodes the first value in text, and says how many bytes that took. With 0 and an error v is as it was. The
// decoder can be used again if there was no error and all was taken.
func (d *jsonDecoder) decode(text []byte, v any) (taken int, err error) {
	d.text = text
	before := d.json.InputOffset()
	err = d.json.Decode(v)
	d.text = nil
	return int(d.json.InputOffset() - before), err
}

// Read implements [io.Reader] for the decoder.
func (d *jsonDecoder) Read(p []byte) (int, error) {
	if len(d.text) == 0 {
		return 0, io.EOF
	}
	n := copy(p, d.text)
	d.text = d.text[n:]
	return n, nil
}

// marshalLent implements lender.
func (JSON) marshalLent(v any) (*buffer, error) {
	e := jsonEncoders.Get().(*jsonEncoder)
	err := e.json.Encode(v)
	b := e.out
	e.out = nil
	jsonEncoders.Put(e)
	if err != nil {
		return nil, err
	}
	b.B = b.B[:len(b.B)-1] // the newline behind it
	return b, nil
}

// A jsonEncoder encodes one value after the other, into borrowed memory.
type jsonEncoder struct {
	json *json.Encoder
	out  *buffer // the last value's text and a newline; nil if there was an error
}

var jsonEncoders = sync.Pool{New: func() any {
	e := new(jsonEncoder)
	e.json = json.NewEncoder(e)
	return e
}}

// Write implements [io.Writer] for the encoder, which writes each value at once.
func (e *jsonEncoder) Write(p []byte) (int, error) {
	e.out = getBuffer(len(p))
	e.out.B = append(e.out.B, p...)
	return len(p), nil
}
