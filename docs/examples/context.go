// Command context checks X-Koder-Context in Go, with the standard library alone: see docs/context.md.
//
//	go run context.go KEYS HOST TOKEN
//
// KEYS is the URL or the file of the gateway's JWK Set.
package main

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"strings"
	"time"
)

// leeway is by how many seconds the clocks may differ.
const leeway = 5

// JWKSet is the gateway's JWK Set.
type JWKSet struct {
	Keys []struct{ Kid, Kty, Crv, X, Y string }
}

// Claims is what the gateway says of a request.
type Claims struct {
	Iss, Tenant, IP, Host string
	Iat, Exp              int64
}

// Verify gives the claims of a token; host is the request's Host.
func Verify(token string, keys JWKSet, host string, now time.Time) (*Claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || len(token) > 4096 {
		return nil, errors.New("this is no compact JWS")
	}
	var header struct {
		Alg, Kid, Typ string
		Crit          json.RawMessage
	}
	var claims Claims
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return nil, err
	}
	if err := decode(parts[0], &header); err != nil {
		return nil, err
	}
	if err := decode(parts[1], &claims); err != nil {
		return nil, err
	}
	if header.Typ != "koder-context+jwt" || header.Crit != nil {
		return nil, errors.New("this is no context: its typ or crit is another")
	}
	if err := check(parts[0]+"."+parts[1], signature, header.Alg, header.Kid, keys); err != nil {
		return nil, err
	}
	at := now.Unix()
	switch {
	case claims.Iss != "koder-gateway":
		return nil, errors.New("the issuer is another")
	case at >= claims.Exp+leeway || at < claims.Iat-leeway:
		return nil, errors.New("it has expired, or is not valid yet")
	case claims.Host != bareHost(host):
		return nil, errors.New("it is for another host")
	}
	return &claims, nil
}

// check looks for the key and compares the signature: the key decides on the algorithm, not the token alone.
func check(signed string, signature []byte, algorithm, kid string, keys JWKSet) error {
	for _, key := range keys.Keys {
		if key.Kid != kid {
			continue
		}
		x, err := base64.RawURLEncoding.DecodeString(key.X)
		if err != nil {
			return err
		}
		genuine := false
		switch {
		case algorithm == "EdDSA" && key.Kty == "OKP" && key.Crv == "Ed25519" && len(x) == ed25519.PublicKeySize:
			genuine = ed25519.Verify(x, []byte(signed), signature)
		case algorithm == "ES256" && key.Kty == "EC" && key.Crv == "P-256" && len(signature) == 64:
			y, err := base64.RawURLEncoding.DecodeString(key.Y)
			if err != nil {
				return err
			}
			public := ecdsa.PublicKey{Curve: elliptic.P256(), X: new(big.Int).SetBytes(x), Y: new(big.Int).SetBytes(y)}
			digest := sha256.Sum256([]byte(signed))
			r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
			genuine = ecdsa.Verify(&public, digest[:], r, s)
		default:
			return errors.New("the key is not for this algorithm")
		}
		if !genuine {
			return errors.New("the signature is wrong")
		}
		return nil
	}
	// Fetch the set again then, but at most every ten seconds.
	return errors.New("the key is not one of the gateway's")
}

func decode(part string, into any) error {
	data, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

func bareHost(host string) string {
	host = strings.ToLower(host)
	if strings.HasPrefix(host, "[") {
		return host[:strings.Index(host, "]")+1]
	}
	name, _, _ := strings.Cut(host, ":")
	return strings.TrimSuffix(name, ".")
}

func read(where string) ([]byte, error) {
	if !strings.HasPrefix(where, "http://") && !strings.HasPrefix(where, "https://") {
		return os.ReadFile(where)
	}
	response, err := http.Get(where)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return io.ReadAll(io.LimitReader(response.Body, 1<<16))
}

func main() {
	where, host, token := os.Args[1], os.Args[2], os.Args[3]
	var keys JWKSet
	data, err := read(where)
	if err == nil {
		err = json.Unmarshal(data, &keys)
	}
	var claims *Claims
	if err == nil {
		claims, err = Verify(token, keys, host, time.Now())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(claims.Tenant, claims.IP, claims.Host)
}
