// Package dns stands in for lego's package of that name, whose providers of DNS need the clients of
// many vendors. Traefik uses it only if it asks for certificates itself.
package dns

import (
	"errors"

	"github.com/go-acme/lego/v5/challenge"
)

// NewDNSChallengeProviderByName knows no provider.
func NewDNSChallengeProviderByName(name string) (challenge.Provider, error) {
	return nil, errors.New("this build knows no provider of DNS such as " + name)
}
