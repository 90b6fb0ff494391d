// Package keyvalue has values of keys in a Redis or a file, as the pipeline grants them under `grants.keyvalue`. A plugin that does not import
// it does not ask to be granted any.
//
//	customers, err := keyvalue.Open("customers")    // in Open: what is not granted stops the pipeline there
//	values, err := customers.GetMany([]string{"7", "8"})
//
// Ask for many keys at once: a question for each row takes a batch's time many times over.
package keyvalue

// Bucket is bytes by keys.
type Bucket struct {
	name   string
	handle uint32
}
